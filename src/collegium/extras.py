"""Packages that a part of the library needs, and that are not installed with it unless asked for."""


def how_to_install(extra: str) -> str:
    """The command that installs one of the extras that pyproject.toml names."""
    return f"in Collegium's checkout, pip install -e '.[{extra}]'"
