"""The strong-room of the weights: a file is used only if it is whole, and the complaint says what to do if it is not.

`weights/hashes.json` states the SHA-256 of each sealed file; the trainers write both, the product reads both.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final, Protocol

from generator.errors import WeightsError

WEIGHTS_FOLDER: Final = Path(__file__).parent / "weights"
_HASHES: Final = "hashes.json"


class WeightsSource(Protocol):
    """Where the shipped weights come from, if not from the package."""

    def read(self, name: str, expected_sha256: str) -> bytes:
        """The bytes of a file, with exactly this hash. Raises: WeightsError."""
        ...


_source: WeightsSource | None = None


def expected_hashes(folder: Path = WEIGHTS_FOLDER) -> dict[str, str]:
    """Return file name → SHA-256 (hex) of every sealed weights file; empty if nothing was sealed."""
    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise WeightsError(f"{folder / _HASHES} cannot be read ({exc}); reinstall placet.") from exc
    return {str(name): str(sha256) for name, sha256 in hashes.items()}


def read_weights(name: str, remedy: str, folder: Path = WEIGHTS_FOLDER) -> bytes:
    """Return the bytes of a sealed weights file.

    Args:
        name: file name in the folder.
        remedy: the command that makes the file anew, such as `placet train motion`.
    Raises: WeightsError: missing, unreadable, truncated or altered; the sentence names the file, the expected hash and
        the command.
    """
    path = folder / name
    expected = expected_hashes(folder).get(name, "unknown")
    if _source is not None and folder == WEIGHTS_FOLDER:
        return _source.read(name, expected)
    what_to_do = (
        f"Expected sha256 {expected}. Reinstall placet, or make the file anew with `{remedy}`; "
        "`placet models list` shows every weights file and its state."
    )
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise WeightsError(f"The weights file {path} cannot be read ({exc.strerror}). {what_to_do}") from exc
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise WeightsError(
            f"The weights file {path} is damaged or of another version ({len(data)} bytes, sha256 {found}). "
            + what_to_do
        )
    return data


def use_source(source: WeightsSource | None) -> None:
    """Let this process read the shipped weights from elsewhere: once, at the start of a worker.

    Args:
        source: e.g. `generator.sealing.SealedWeights`; None for the packaged files.
    """
    global _source
    _source = source


def write_weights(path: Path, data: bytes) -> str:
    """Write a weights file and its hash beside it, each in one step; return the hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256(data).hexdigest()
    hashes = expected_hashes(path.parent) | {path.name: sha256}
    for target, content in (
        (path, data),
        (path.parent / _HASHES, (json.dumps(hashes, indent=1, sort_keys=True) + "\n").encode()),
    ):
        unfinished = target.with_name(target.name + ".unfinished")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return sha256
