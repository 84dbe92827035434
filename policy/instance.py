"""A local instance: one directory with the keys, the log and the policies of a deployment.

    <home>/
      instance.json         name, origin of the log, version of this layout
      keys/                 policy.keys
      log/                  policy.log, tlog-tiles
      policies/             policy.archive: every policy text that ever decided here
      pki/                  the private certificate authority (made by watermark.credentials)
      permits.sqlite3       the worker's ledger of redeemed permits

`Instance.create` makes all of it beside its final place and renames it at the end: there is a whole instance or none.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policy.archive import PolicyArchive
from policy.canonical import canonical_json, sha256_hex
from policy.decision import PolicyEngine
from policy.errors import InstanceError
from policy.files import fsync_directory, write_atomically
from policy.gate import Gate
from policy.keys import KeyAccess, KeyRing, public_key_bytes
from policy.log import Log

LAYOUT_VERSION: Final = 1
CREATED_KIND: Final = "instance.created"
_INSTANCE_FILE: Final = "instance.json"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Instance:
    """An open instance. Make one with `Instance.create`, open it with `Instance.open`."""

    home: Path
    name: str
    origin: str
    keys: KeyRing = field(repr=False)
    log: Log = field(repr=False)
    engine: PolicyEngine = field(repr=False)
    archive: PolicyArchive = field(repr=False)
    gate: Gate = field(repr=False)

    @classmethod
    def create(
        cls, home: Path, name: str, *, access: KeyAccess | None = None, now: Callable[[], float] = time.time
    ) -> Instance:
        """Make a new instance in `home`, which must not exist or be empty.

        Args:
            name: lower-case letters, digits and hyphens; part of the log's origin.
            access: where its keys shall be; by default in files of `home`.
        Raises: InstanceError: there is something already, or it cannot be written. KeyRingError, LogError.
        """
        if not _NAME.fullmatch(name):
            raise InstanceError("The name of an instance is 1 to 63 lower-case letters, digits and hyphens.")
        home = home.absolute()
        if home.exists() and (not home.is_dir() or any(home.iterdir())):
            raise InstanceError("There is something in this directory already; choose a new one for the instance.")
        origin = f"{name}.placet.local/log"
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
        except OSError as exc:
            raise InstanceError(f"The instance directory cannot be made ({exc.strerror}).") from exc
        try:
            keys = KeyRing.create(draft / "keys", access)
            log = Log.create(draft / "log", keys.log_key, origin, now=now)
            log.append(
                CREATED_KIND,
                {
                    "log_key_sha256": sha256_hex(public_key_bytes(keys.log_public)),
                    "permit_key_sha256": sha256_hex(public_key_bytes(keys.permit_public)),
                },
            )
            about = {"layout": LAYOUT_VERSION, "name": name, "origin": origin}
            write_atomically(draft / _INSTANCE_FILE, canonical_json(about))
            draft.rename(home)
            fsync_directory(home.parent)
        except OSError as exc:
            shutil.rmtree(draft, ignore_errors=True)
            raise InstanceError(f"The instance directory cannot be made ({exc.strerror}).") from exc
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return cls.open(home, access=access, now=now)

    @classmethod
    def open(
        cls,
        home: Path,
        *,
        policies: Path | None = None,
        access: KeyAccess | None = None,
        now: Callable[[], float] = time.time,
    ) -> Instance:
        """Open the instance in `home`.

        Args:
            access: where its keys are; by default in files of `home`.
            policies: a directory with the operator's own Cedar files; by default those that ship.
        Raises: InstanceError: no instance here, or of another layout. KeyRingError, LogError, PolicySetError.
        """
        try:
            about = json.loads((home / _INSTANCE_FILE).read_bytes())
            layout, name, origin = about["layout"], str(about["name"]), str(about["origin"])
        except FileNotFoundError as exc:
            raise InstanceError("There is no instance in this directory; run `placet init` first.") from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise InstanceError(f"{_INSTANCE_FILE} is damaged; restore it from the backup.") from exc
        if layout != LAYOUT_VERSION:
            raise InstanceError(f"This instance has layout {layout!r}; this version reads layout {LAYOUT_VERSION}.")
        keys = KeyRing.load(home / "keys", access)
        log = Log.open(home / "log", keys.log_key, origin, now=now)
        engine = PolicyEngine.load(policies)
        archive = PolicyArchive(home / "policies")
        archive.keep(engine)
        return cls(home, name, origin, keys, log, engine, archive, Gate(engine, log, keys, now))

    @property
    def ledger_path(self) -> Path:
        """Where the local worker keeps its `PermitLedger`."""
        return self.home / "permits.sqlite3"

    @property
    def pki(self) -> Path:
        """Where the private certificate authority lives."""
        return self.home / "pki"
