"""Scenes and spectra with many bands: read, split in space, and cut into patches on the fly."""
