from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def software_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("placet")
    except PackageNotFoundError:
        return "0+source"
