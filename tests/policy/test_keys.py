"""The key ring and identities."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from policy.errors import IdentityError, KeyRingError
from policy.identity import SCOPE_RENDER_CREATE, Actor, check_identifier
from policy.keys import KeyRing, public_key_bytes
from policy.kms import KEY_NAMES


def test_what_was_created_is_loaded(tmp_path: Path) -> None:
    made = KeyRing.create(tmp_path / "deep" / "keys")
    read = KeyRing.load(tmp_path / "deep" / "keys")
    assert public_key_bytes(read.permit_public) == public_key_bytes(made.permit_public)
    assert public_key_bytes(read.log_public) == public_key_bytes(made.log_public)
    assert read.oauth_key.private_numbers() == made.oauth_key.private_numbers()
    assert (read.watermark_key, read.commitment_key, read.subject_key_wrap) == (
        made.watermark_key,
        made.commitment_key,
        made.subject_key_wrap,
    )
    assert len({made.watermark_key, made.commitment_key, made.subject_key_wrap}) == 3


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    files = list((tmp_path / "keys").iterdir())
    assert len([path for path in files if path.suffix in {".pem", ".key"}]) == len(KEY_NAMES)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    files[0].chmod(0o640)
    with pytest.raises(KeyRingError, match="accessible"):
        KeyRing.load(tmp_path / "keys")


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys")
    with pytest.raises(KeyRingError, match="never overwritten"):
        KeyRing.create(tmp_path / "keys")


FILES = ["permit.pem", "log.pem", "oauth.pem", "watermark.key", "commitment.key", "subject-wrap.key"]


@pytest.mark.parametrize("name", FILES)
def test_missing_or_damaged_files(tmp_path: Path, name: str) -> None:
    KeyRing.create(tmp_path / "keys")
    path = tmp_path / "keys" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(KeyRingError, match=name) as caught:
        KeyRing.load(tmp_path / "keys")
    assert "PRIVATE" not in str(caught.value)
    path.unlink()
    with pytest.raises(KeyRingError, match=name):
        KeyRing.load(tmp_path / "keys")


def test_keys_of_the_wrong_kind(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys")
    files = tmp_path / "keys"
    good = (files / "permit.pem").read_bytes()
    (files / "permit.pem").write_bytes((files / "oauth.pem").read_bytes())
    with pytest.raises(KeyRingError):
        KeyRing.load(files)
    (files / "permit.pem").write_bytes(good)
    (files / "oauth.pem").write_bytes(good)
    with pytest.raises(KeyRingError):
        KeyRing.load(files)
    with pytest.raises(KeyRingError):
        KeyRing.load(tmp_path / "nothing")


def test_nothing_secret_is_printed(keys: KeyRing) -> None:
    assert repr(keys) == "KeyRing()"
    assert isinstance(keys.oauth_key.curve, ec.SECP256R1)


def test_pseudonyms(keys: KeyRing, tmp_path: Path) -> None:
    name = keys.pseudonym("subject", "alice")
    assert name == keys.pseudonym("subject", "alice")
    assert len({name, keys.pseudonym("subject", "bob"), keys.pseudonym("client", "alice")}) == 3
    assert name.startswith("subject:") and "alice" not in name and len(name) == len("subject:") + 32
    assert KeyRing.create(tmp_path / "other").pseudonym("subject", "alice") != name


def test_actors() -> None:
    actor = Actor("client-1", "uni", frozenset({SCOPE_RENDER_CREATE}))
    assert actor.roles == frozenset()
    with pytest.raises(IdentityError, match="no scope"):
        Actor("client-1", "uni", frozenset({"render:*"}))
    for bad in ("", "a b", "ä", "аlice", "-x", "x" * 129, "a\n", None, 7):
        with pytest.raises(IdentityError):
            check_identifier(bad, "client_id")
