"""Rotation as an operator does it: subjects' keys, certificates, sealed weights, and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from api.cli.root import app
from api.errors import SealError
from api.keyring import forget, rotate
from api.settings import Settings
from api.setup import create_instance
from api.storage.database import Database
from api.storage.models import Subject
from api.storage.sealing import new_wrapped_key, seal, unseal
from policy.errors import KeyRingError
from policy.instance import Instance
from policy.kms import KEY_NAMES, UNROTATED, wrapped_kid
from watermark.authority import SigningAuthority


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    create_instance(made, "rotating")
    return made


def with_subject(settings: Settings, subject_id: str) -> bytes:
    """A subject in the database, and something that is sealed under their key."""
    keys = Instance.open(settings.home).keys.service
    wrapped = new_wrapped_key(subject_id, keys)
    database = Database.open(settings.addresses.database)
    with database.write() as session:
        session.add(
            Subject(
                subject_id=subject_id,
                subject_class="adult",
                public_jwk={},
                wrapped_key=wrapped,
                created_at=0.0,
                log_index=0,
            )
        )
    database.close()
    return seal(b"a portrait", subject_id=subject_id, wrapped_key=wrapped, keys=keys)


def opened(settings: Settings, subject_id: str, sealed: bytes) -> tuple[bytes, str]:
    database = Database.open(settings.addresses.database)
    with database.read() as session:
        wrapped = session.scalars(select(Subject.wrapped_key).where(Subject.subject_id == subject_id)).one()
    database.close()
    assert wrapped is not None
    keys = Instance.open(settings.home).keys.service
    return unseal(sealed, subject_id=subject_id, wrapped_key=wrapped, keys=keys), wrapped_kid(wrapped)


def test_subjects_keys_are_wrapped_anew(settings: Settings) -> None:
    sealed = {name: with_subject(settings, name) for name in ("alice", "bob")}
    turn = rotate(settings, "subject-wrap")
    assert turn.num_rewrapped == 2
    gone = forget(settings, "subject-wrap")
    assert gone == (turn.rotated.rotation.old_kid,)
    for name, each in sealed.items():
        plain, kid = opened(settings, name, each)
        assert plain == b"a portrait" and turn.rotated.rotation.new_kid.startswith(kid)
    with pytest.raises(SealError):
        opened(settings, "bob", sealed["alice"])
    kinds = [entry["kind"] for entry in Instance.open(settings.home).log.entries(0)]
    assert kinds[-5:] == ["key.rotating", "key.rotated", "key.rewrapped", "key.rewrapped", "key.forgotten"]


def test_a_new_claim_signer_has_its_certificate_before_it_signs(settings: Settings) -> None:
    instance = Instance.open(settings.home)
    before = SigningAuthority.load(instance.pki, key=instance.keys.c2pa_key)
    rotate(settings, "c2pa")
    after = SigningAuthority.load(instance.pki, key=instance.keys.c2pa_key)
    assert after.root_pem == before.root_pem and after.leaf != before.leaf
    assert after.leaf.public_key() == instance.keys.c2pa_key.public_key
    assert before.current().leaf == after.leaf


def test_only_wrapping_keys_are_forgotten(settings: Settings) -> None:
    with pytest.raises(KeyRingError):
        forget(settings, "permit")


def test_the_commands(settings: Settings) -> None:
    def run(*arguments: str, status: int = 0) -> dict[str, object]:
        result = CliRunner().invoke(app, [*arguments, "--home", str(settings.home), "--json"])
        assert result.exit_code == status, result.output
        return dict(json.loads(result.stdout.splitlines()[-1]))

    before = {key["name"]: key["kid"] for key in run("keys", "list")["keys"]}  # type: ignore[attr-defined]
    for name in KEY_NAMES:
        if name in UNROTATED:
            assert run("keys", "rotate", name, status=2)["error"] == "keys.invalid"
        else:
            assert run("keys", "rotate", name)["old_kid"] == before[name]
    assert run("models", "unseal-check", status=1)["is_sound"] is False
    run("models", "seal")
    assert run("models", "unseal-check")["is_sound"] is True
    run("keys", "rotate", "weights-wrap")
    run("keys", "forget", "weights-wrap")
    assert run("models", "unseal-check")["is_sound"] is True
    (settings.home / "weights" / "head.safetensors.sealed").write_bytes(b"")
    assert run("models", "unseal-check", status=1)["is_sound"] is False
    assert run("audit", "verify")["problems"] == []
