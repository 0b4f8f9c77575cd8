"""Studies: grids of runs."""
