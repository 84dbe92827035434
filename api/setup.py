"""Makes a new instance: keys, log, private CA, database, and the local operator's client with its key file."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from joserfc.jwk import ECKey

from api.clients import SCOPES_BY_KIND, ClientDirectory, Vetting
from api.errors import InstanceExistsError
from api.settings import Settings
from api.storage.database import Database
from policy.instance import Instance
from watermark.credentials import SigningAuthority

LOCAL_OPERATOR_ORG = "local-operator"


@dataclass(frozen=True)
class NewInstance:
    """What was made."""

    home: Path
    name: str
    operator_client_id: str
    operator_key_path: Path
    log_verifier_key: str


def create_instance(settings: Settings, name: str, now: Callable[[], float] = time.time) -> NewInstance:
    """Make an instance in `settings.home`: a whole one, or none. Raises InstanceExistsError, InstanceError."""
    home = settings.home
    if (home / "instance.json").exists():
        raise InstanceExistsError("There is an instance here already: choose another home.")
    instance = Instance.create(home, name, access=settings.key_access, now=now)
    database: Database | None = None
    try:
        SigningAuthority.create(
            instance.pki, f"Placet {name}", key=instance.keys.c2pa_key, ocsp_url=f"{settings.base_url}/pki/ocsp"
        )
        database = Database.create(settings.addresses.database)
        key = ECKey.generate_key("P-256")
        key.ensure_kid()
        operator = ClientDirectory(database, instance.gate, now).register(
            Vetting(
                kind="operator",
                name="local operator",
                org=LOCAL_OPERATOR_ORG,
                project="",
                ethics_reference="",
                scopes=SCOPES_BY_KIND["operator"],
                term_expires_at=None,
                budget_s_per_day=0.0,
            ),
            {"keys": [key.as_dict(private=False)]},
        )
        database.close()
        write_private_json(
            settings.operator_key_path, {"client_id": operator.client_id, "key": key.as_dict(private=True)}
        )
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        if database is not None and settings.is_shared:
            database.drop()
        raise
    return NewInstance(home, name, operator.client_id, settings.operator_key_path, instance.log.verifier_key)


def write_private_json(path: Path, content: object) -> None:
    """Write a new file that only its owner can read. Raises FileExistsError rather than overwrite a key."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(content, out, indent=2)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
