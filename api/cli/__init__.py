"""The command `placet`. Every command takes `--json` and ends with status 0, 1 (negative) or 2 (input error)."""

from __future__ import annotations

from api.cli.root import main

__all__ = ["main"]
