"""Key services: both back ends answer alike, rotations lose nothing, and what is retired counts only for the past."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from policy.errors import KeyRingError, UnwrapError
from policy.keyfiles import FileKeyService
from policy.keys import KeyAccess, KeyRing
from policy.kms import (
    KEY_NAMES,
    SIGNING_KEYS,
    WRAPPING_KEYS,
    CurrentSigningKey,
    KeyService,
    PublicKey,
    SigningKey,
    as_signing_key,
    public_kid,
    verifying_keys,
    wrapped_kid,
)
from tests.conftest import SOFTHSM_LIBRARIES

PIN = "4321"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A token in a directory of its own, and its address."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    patch = pytest.MonkeyPatch()
    patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    command = ["softhsm2-util", "--init-token", "--free", "--label", "placet", "--so-pin", "87654321", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True)
    library = next(path for path in SOFTHSM_LIBRARIES if path.is_file())
    yield f"pkcs11:token=placet?module-path={library}"
    patch.undo()


@pytest.fixture(params=["file", pytest.param("pkcs11", marks=pytest.mark.needs("softhsm"))])
def access(request: pytest.FixtureRequest) -> KeyAccess:
    return KeyAccess() if request.param == "file" else KeyAccess(request.getfixturevalue("token"), PIN)


@pytest.fixture
def service(access: KeyAccess, tmp_path: Path) -> KeyService:
    return access.create(tmp_path / "keys")


def verify(public_key: PublicKey, signature: bytes, message: bytes) -> None:
    assert len(signature) == 64
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        public_key.verify(signature, message)
    else:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public_key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


def test_signing(service: KeyService) -> None:
    for name, algorithm in SIGNING_KEYS.items():
        key = service.signing_key(name)
        assert isinstance(key, SigningKey) and key.algorithm == algorithm
        assert key.kid == public_kid(key.public_key) and len(key.kid) == 32
        verify(key.public_key, key.sign(b"message"), b"message")
        assert service.retired(name) == ()
    assert len({service.signing_key(name).kid for name in SIGNING_KEYS}) == len(SIGNING_KEYS)


def test_wrapping(service: KeyService) -> None:
    for name in WRAPPING_KEYS:
        wrapped = service.wrap(name, b"a key", b"context")
        assert service.unwrap(name, wrapped, b"context") == b"a key" and b"a key" not in wrapped
        with pytest.raises(UnwrapError):
            service.unwrap(name, wrapped, b"another")
        for at in range(len(wrapped)):
            with pytest.raises(UnwrapError):
                service.unwrap(name, wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :], b"context")
            with pytest.raises(UnwrapError):
                service.unwrap(name, wrapped[:at], b"context")
    first, second = WRAPPING_KEYS
    with pytest.raises(UnwrapError):
        service.unwrap(second, service.wrap(first, b"a key", b""), b"")


def test_everything_outlives_the_process(service: KeyService, access: KeyAccess, tmp_path: Path) -> None:
    wrapped = service.wrap("subject-wrap", b"a key", b"alice")
    again = access.open(tmp_path / "keys")
    assert again.describe() == service.describe()
    assert {info.name for info in again.describe()} >= set(KEY_NAMES)
    assert again.unwrap("subject-wrap", wrapped, b"alice") == b"a key"
    assert again.secrets("watermark") == service.secrets("watermark") and len(again.secrets("commitment")[0]) == 32


def test_rotation_of_a_signing_key(service: KeyService, access: KeyAccess, tmp_path: Path) -> None:
    other = access.open(tmp_path / "keys")  # another process that is running
    held = CurrentSigningKey(other, "permit")
    old = other.signing_key("permit")
    seen: list[tuple[str, str]] = []

    def hand_over(before: SigningKey, after: SigningKey) -> None:
        verify(before.public_key, before.sign(b"goodbye"), b"goodbye")
        verify(after.public_key, after.sign(b"hello"), b"hello")
        assert service.signing_key("permit").kid == before.kid  # still
        seen.append((before.kid, after.kid))

    rotation = service.rotate("permit", hand_over=hand_over)
    assert seen == [(rotation.old_kid, rotation.new_kid)] and rotation.old_kid == old.kid
    assert held.kid == rotation.new_kid
    verify(other.signing_key("permit").public_key, held.sign(b"m"), b"m")
    assert [public_kid(key) for key in other.retired("permit")] == [old.kid]
    assert [public_kid(key) for key in verifying_keys(held)] == [rotation.new_kid, old.kid]
    second = service.rotate("permit")
    assert [public_kid(key) for key in other.retired("permit")] == [second.old_kid, old.kid]
    info = next(each for each in access.open(tmp_path / "keys").describe() if each.name == "permit")
    assert (info.kid, info.retired) == (second.new_kid, (second.old_kid, old.kid))


def test_a_rotation_that_is_stopped_changes_nothing(service: KeyService, access: KeyAccess, tmp_path: Path) -> None:
    before = service.describe()

    def refuse(_: SigningKey, __: SigningKey) -> None:
        raise KeyRingError("The log cannot be written.")

    with pytest.raises(KeyRingError, match="cannot be written"):
        service.rotate("log", hand_over=refuse)
    assert service.describe() == before == access.open(tmp_path / "keys").describe()
    service.rotate("log")


def test_rotation_of_a_wrapping_key(service: KeyService) -> None:
    wrapped = service.wrap("subject-wrap", b"a key", b"alice")
    rotation = service.rotate("subject-wrap")
    assert service.unwrap("subject-wrap", wrapped, b"alice") == b"a key"
    anew = service.wrap("subject-wrap", b"a key", b"alice")
    assert rotation.old_kid.startswith(wrapped_kid(wrapped)) and rotation.new_kid.startswith(wrapped_kid(anew))
    assert service.forget("subject-wrap") == (rotation.old_kid,)
    assert service.forget("subject-wrap") == ()
    assert service.unwrap("subject-wrap", anew, b"alice") == b"a key"
    with pytest.raises(UnwrapError, match="gone"):
        service.unwrap("subject-wrap", wrapped, b"alice")


def test_rotation_of_the_watermark_key(service: KeyService, access: KeyAccess, tmp_path: Path) -> None:
    (first,) = service.secrets("watermark")
    service.rotate("watermark")
    second = service.secrets("watermark")[0]
    service.rotate("watermark")
    keys = access.open(tmp_path / "keys").secrets("watermark")
    assert len(keys) == len(set(keys)) == 3 and keys[1:] == (second, first)
    ring = KeyRing(service)
    assert ring.watermark_key == keys[0] and ring.watermark_keys == keys


def test_the_commitment_key_stays(service: KeyService) -> None:
    with pytest.raises(KeyRingError, match="pseudonym"):
        service.rotate("commitment")


def test_names_that_do_not_exist(service: KeyService) -> None:
    for call in (service.signing_key, service.retired, service.secrets, service.rotate, service.forget):
        with pytest.raises(KeyRingError, match="There is no"):
            call("nothing")
    with pytest.raises(KeyRingError):
        service.wrap("permit", b"", b"")


def test_keys_of_another_service(tmp_path: Path, access: KeyAccess) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    with pytest.raises(KeyRingError):
        KeyRing.load(other, access)
    with pytest.raises(KeyRingError):
        access.create(tmp_path)  # not empty


# ------------------------------------------------------------------------------------------------------------ files


def test_a_rotation_that_a_crash_cuts_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before `public.json` the old key is the key; after it, the next process finishes."""
    service = FileKeyService.create(tmp_path / "keys")
    old = service.signing_key("log")
    monkeypatch.setattr("policy.keyfiles.write_public_keys", _power_cut)
    with pytest.raises(PowerCut):
        service.rotate("log")
    assert FileKeyService(tmp_path / "keys").signing_key("log").kid == old.kid
    monkeypatch.undo()
    monkeypatch.setattr(FileKeyService, "_finish", _power_cut)
    with pytest.raises(PowerCut):
        service.rotate("log")
    monkeypatch.undo()
    again = FileKeyService(tmp_path / "keys")
    assert again.signing_key("log").kid != old.kid
    assert [public_kid(key) for key in again.retired("log")] == [old.kid]
    assert not list((tmp_path / "keys").glob("*.next.pem"))


def test_a_retired_private_key_is_gone(tmp_path: Path) -> None:
    service = FileKeyService.create(tmp_path / "keys")
    old = (tmp_path / "keys" / "permit.pem").read_bytes()
    service.rotate("permit")
    for path in (tmp_path / "keys").rglob("*"):
        assert not path.is_file() or old not in path.read_bytes()


def test_a_directory_from_before_rotation(tmp_path: Path) -> None:
    service = FileKeyService.create(tmp_path / "keys")
    (tmp_path / "keys" / "public.json").unlink()
    again = FileKeyService(tmp_path / "keys")
    assert again.retired("log") == ()
    again.rotate("log")
    assert [public_kid(key) for key in again.retired("log")] == [service.describe()[1].retired[0]]
    (tmp_path / "keys" / "public.json").write_bytes(b"{}")
    with pytest.raises(KeyRingError, match=r"public\.json"):
        FileKeyService(tmp_path / "keys").retired("log")


def test_private_keys_of_cryptography() -> None:
    key = as_signing_key(ec.generate_private_key(ec.SECP256R1()))
    assert as_signing_key(key) is key
    verify(key.public_key, key.sign(b"m"), b"m")
    assert "private" not in repr(key)
    with pytest.raises(KeyRingError):
        as_signing_key(ec.generate_private_key(ec.SECP384R1()))


# ------------------------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:", "pkcs11:token=a", "pkcs12:token=a?module-path=/x", "pkcs11:token=a;object=b?module-path=/x",
        "pkcs11:token=a?module-path=/x&pin-value=1234", "pkcs11:token=a?pin-source=/x",
    ],
)  # fmt: skip
def test_addresses_of_tokens_that_are_none(uri: str, tmp_path: Path) -> None:
    with pytest.raises(KeyRingError) as caught:
        KeyAccess(uri, PIN).create(tmp_path / "keys")
    assert "1234" not in str(caught.value)


@pytest.mark.needs("softhsm")
def test_a_token_that_does_not_open(token: str, tmp_path: Path) -> None:
    command = ["softhsm2-util", "--init-token", "--free", "--label", "shut", "--so-pin", "87654321", "--pin", "99999"]
    subprocess.run(command, check=True, capture_output=True)
    for kms, pin in (
        (token.replace("=placet", "=shut"), "0000"),
        (token.replace("=placet", "=other"), PIN),
        ("pkcs11:token=placet?module-path=/nowhere.so", PIN),
    ):
        wrong = KeyAccess(kms, pin)
        with pytest.raises(KeyRingError) as caught:
            wrong.create(tmp_path / kms.replace("/", "") / "keys")
        assert pin not in str(caught.value) and pin not in repr(wrong)


@pytest.mark.needs("softhsm")
def test_nothing_secret_lies_in_the_directory_of_a_token(token: str, tmp_path: Path) -> None:
    ring = KeyRing.create(tmp_path / "keys", KeyAccess(token, PIN))
    ring.service.rotate("watermark")
    for path in (tmp_path / "keys").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert b"PRIVATE" not in data and not any(key in data for key in (*ring.watermark_keys, ring.commitment_key))
    with pytest.raises(KeyRingError, match="leaves the token"):
        _ = ring.subject_key_wrap
    with pytest.raises(KeyRingError, match="cannot be taken out"):
        _ = ring.oauth_key


class PowerCut(BaseException):
    pass


def _power_cut(*_: object) -> None:
    raise PowerCut
