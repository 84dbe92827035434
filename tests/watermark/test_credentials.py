"""C2PA: signed by the instance's own authority, verified by two independent readers."""

from __future__ import annotations

import datetime as dt
import io
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import encypher_c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ObjectIdentifier

from policy.kms import as_signing_key
from watermark.credentials import (
    COMPOSITE_SOURCE_TYPE,
    SOFT_BINDING_ALGORITHM,
    CredentialReading,
    Ingredient,
    ManifestSpec,
    SigningAuthority,
    read_credentials,
    sign,
)
from watermark.encoding import encode_clip
from watermark.errors import (
    AuthorityError,
    InvalidManifestSpecError,
    SigningError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from watermark.media import Clip
from watermark.payload import MarkId


@pytest.fixture(scope="module")
def unsigned(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unsigned") / "clip.mp4"
    encode_clip(Clip(clip.frames_THWC[:20, ::2, ::2], 25.0, clip.sound), path)
    return path


@pytest.fixture(scope="module")
def spec(make_spec: Callable[[MarkId], ManifestSpec], mark_id: MarkId) -> ManifestSpec:
    return make_spec(mark_id)


@pytest.fixture(scope="module")
def signed(
    unsigned: Path, spec: ManifestSpec, authority: SigningAuthority, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    path = tmp_path_factory.mktemp("signed") / "clip.mp4"
    store = sign(unsigned, path, spec, authority)
    assert len(store) > 5000
    return path.read_bytes()


def action(reading: CredentialReading, name: str) -> dict:
    assert reading.manifest is not None
    (actions,) = (a["data"] for a in reading.manifest["assertions"] if a["label"] == "c2pa.actions.v2")
    assert actions["allActionsIncluded"] is True
    (found,) = (entry for entry in actions["actions"] if entry["action"] == name)
    return found


# ---- what a reader sees ----------------------------------------------------------------------------------------------


def test_a_reader_with_the_root_says_trusted(signed: bytes, authority: SigningAuthority, mark_id: MarkId) -> None:
    reading = read_credentials(signed, "video/mp4", authority.root_pem)
    assert (reading.state, reading.problems) == ("trusted", ())
    assert reading.mark_id == mark_id
    assert reading.digital_source_type == COMPOSITE_SOURCE_TYPE
    assert reading.manifest_id is not None and reading.manifest_id.startswith("urn:c2pa:")
    assert reading.signer == "Placet local instance (tests) claim signer, Placet local instance"


def test_an_independent_validator_agrees(signed: bytes, authority: SigningAuthority) -> None:
    verdict = encypher_c2pa.verify(signed, "video/mp4", trust_pem=authority.root_pem, telemetry=False)
    assert (verdict["validation_state"], verdict["integrity"], verdict["signature"]) == ("Trusted", "valid", "valid")
    assert verdict["hard_binding"] == "match"
    assert not verdict["validation_results"].get("failure")


def test_a_reader_without_the_root_says_valid(signed: bytes) -> None:
    assert read_credentials(signed, "video/mp4", "").state == "valid"


def test_another_instance_is_not_trusted(signed: bytes, tmp_path: Path) -> None:
    other = SigningAuthority.create(tmp_path / "pki", "Another instance")
    assert read_credentials(signed, "video/mp4", other.root_pem).state == "valid"


def test_the_manifest_says_what_was_done(signed: bytes, spec: ManifestSpec, authority: SigningAuthority) -> None:
    reading = read_credentials(signed, "video/mp4", authority.root_pem)
    assert reading.manifest is not None
    created = action(reading, "c2pa.created")
    assert len(created["parameters"]["ingredients"]) == 2
    action(reading, "c2pa.watermarked.bound")
    assert [(i["title"], i["relationship"]) for i in reading.manifest["ingredients"]] == [
        ("Portrait", "inputTo"),
        ("Speech", "inputTo"),
    ]
    by_label = {a["label"]: a for a in reading.manifest["assertions"]}
    assert all(assertion["created"] for assertion in by_label.values())
    assert by_label["c2pa.soft-binding"]["data"]["alg"] == SOFT_BINDING_ALGORITHM
    uses = {entry["use"] for entry in by_label["cawg.training-mining"]["data"]["entries"].values()}
    assert uses == {"notAllowed"}
    assert (reading.consent, reading.log) == (spec.consent, spec.log)
    assert reading.manifest["claim_generator_info"][0]["specVersion"] == "2.4.0"


def test_without_consent_there_is_no_consent_assertion(
    unsigned: Path, spec: ManifestSpec, authority: SigningAuthority, tmp_path: Path
) -> None:
    sign(unsigned, tmp_path / "out.mp4", replace(spec, consent=None), authority)
    assert read_credentials(tmp_path / "out.mp4", "video/mp4", authority.root_pem).consent is None


def test_the_manifest_of_an_ingredient_is_kept(
    unsigned: Path, spec: ManifestSpec, authority: SigningAuthority, tmp_path: Path
) -> None:
    picture = tmp_path / "portrait.png"
    picture.write_bytes(spec.portrait.data)
    sign(picture, tmp_path / "signed.png", replace(spec, title="A signed portrait"), authority, mime="image/png")
    portrait = Ingredient((tmp_path / "signed.png").read_bytes(), "image/png", "Portrait")
    sign(unsigned, tmp_path / "out.mp4", replace(spec, portrait=portrait), authority)
    reading = read_credentials(tmp_path / "out.mp4", "video/mp4", authority.root_pem)
    assert reading.state == "trusted" and reading.manifest is not None
    assert reading.manifest["ingredients"][0]["active_manifest"].startswith("urn:c2pa:")


# ---- tampering -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.35, 0.6, 0.95])
def test_a_flipped_media_byte_is_named(place: float, signed: bytes, authority: SigningAuthority) -> None:
    changed = bytearray(signed)
    changed[int(len(changed) * place)] ^= 0x01
    reading = read_credentials(bytes(changed), "video/mp4", authority.root_pem)
    assert reading.state == "invalid"
    assert "assertion.bmffHash.mismatch" in {problem.code for problem in reading.problems}


def test_nothing_can_be_added(signed: bytes, authority: SigningAuthority) -> None:
    for box in (b"\0\0\0\x10free12345678", b"\0\0\0\x10skip12345678"):
        assert read_credentials(signed + box, "video/mp4", authority.root_pem).state == "invalid"


def test_no_byte_of_the_file_can_be_flipped_unseen(signed: bytes, authority: SigningAuthority) -> None:
    rng = np.random.default_rng(5)
    start = signed.index(b"c2pa")
    for place in [*rng.integers(start, len(signed), 40), *rng.integers(start, start + 12_000, 40)]:
        changed = bytearray(signed)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            reading = read_credentials(bytes(changed), "video/mp4", authority.root_pem)
        except UnreadableMediaError:
            continue
        original = read_credentials(signed, "video/mp4", authority.root_pem)
        # Padding after the manifest is not covered, and carries nothing: the reading is the same to the letter then.
        assert reading.state != "trusted" or reading == original


def test_stripped_metadata_reads_as_absent(unsigned: Path) -> None:
    assert read_credentials(unsigned, "video/mp4", "").state == "absent"


def test_garbage_is_not_called_invalid() -> None:
    for data in (b"", b"abc" * 100, bytes(500)):
        with pytest.raises(UnreadableMediaError):
            read_credentials(data, "video/mp4", "")


def test_text_is_no_media() -> None:
    with pytest.raises(UnsupportedMediaError):
        read_credentials(b"hello", "text/x-unheard-of", "")


# ---- the authority ---------------------------------------------------------------------------------------------------


def leaf_key_path(directory: Path) -> Path:
    (path,) = directory.glob("leaf-*.key")
    return path


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    SigningAuthority.create(tmp_path / "pki", "Placet")
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    files = list((tmp_path / "pki").iterdir())
    assert len(files) == 11
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_leaf_is_what_the_trust_model_asks_for(authority: SigningAuthority) -> None:
    leaf, intermediate = x509.load_pem_x509_certificates(authority.chain_pem.encode())
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= dt.timedelta(days=366)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and usage.content_commitment and not usage.key_cert_sign
    purposes = list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert purposes == [ObjectIdentifier("1.3.6.1.4.1.62558.2.1")]
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_an_authority_loads_again(tmp_path: Path) -> None:
    created = SigningAuthority.create(tmp_path / "pki", "Placet")
    loaded = SigningAuthority.load(tmp_path / "pki")
    assert (loaded.root_pem, loaded.chain_pem) == (created.root_pem, created.chain_pem)
    with pytest.raises(AuthorityError, match="already"):
        SigningAuthority.create(tmp_path / "pki", "Placet")


def test_an_expired_leaf_signs_nothing(unsigned: Path, spec: ManifestSpec, tmp_path: Path) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    SigningAuthority.create(tmp_path / "pki", "Placet", now=lambda: past)
    expired = SigningAuthority.load(tmp_path / "pki")
    with pytest.raises(SigningError, match="Renew"):
        sign(unsigned, tmp_path / "out.mp4", spec, expired)
    assert not (tmp_path / "out.mp4").exists()
    # Even a wrong clock of ours does not get it past the library.
    fooled = SigningAuthority.load(tmp_path / "pki", now=lambda: past)
    with pytest.raises(SigningError):
        sign(unsigned, tmp_path / "out.mp4", spec, fooled)
    assert not (tmp_path / "out.mp4").exists()


def test_a_renewed_leaf_signs_again(unsigned: Path, spec: ManifestSpec, tmp_path: Path) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    old = SigningAuthority.create(tmp_path / "pki", "Placet", now=lambda: past)
    renewed = SigningAuthority.renew(tmp_path / "pki", "Placet")
    sign(unsigned, tmp_path / "out.mp4", spec, renewed)
    assert read_credentials(tmp_path / "out.mp4", "video/mp4", old.root_pem).state == "trusted"


def test_a_failing_key_service_delivers_nothing(
    unsigned: Path, spec: ManifestSpec, authority: SigningAuthority, tmp_path: Path
) -> None:
    class Unreachable(SigningAuthority):
        def sign_bytes(self, data: bytes) -> bytes:
            raise ConnectionError("the key service does not answer")

    broken = Unreachable(
        root_pem=authority.root_pem,
        chain_pem=authority.chain_pem,
        leaf_key=as_signing_key(ec.generate_private_key(ec.SECP256R1())),
        now=lambda: dt.datetime.now(dt.UTC),
    )
    with pytest.raises(SigningError):
        sign(unsigned, tmp_path / "out.mp4", spec, broken)
    assert not (tmp_path / "out.mp4").exists()


def test_a_wrong_key_delivers_nothing(
    unsigned: Path, spec: ManifestSpec, authority: SigningAuthority, tmp_path: Path
) -> None:
    wrong = SigningAuthority(
        root_pem=authority.root_pem,
        chain_pem=authority.chain_pem,
        leaf_key=as_signing_key(ec.generate_private_key(ec.SECP256R1())),
        now=lambda: dt.datetime.now(dt.UTC),
    )
    with pytest.raises(SigningError):
        sign(unsigned, tmp_path / "out.mp4", spec, wrong)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("pattern", ["root.pem", "intermediate.pem", "leaf.pem", "leaf-*.key"])
def test_a_missing_or_damaged_file_is_named(pattern: str, tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    SigningAuthority.create(directory, "Placet")
    (name,) = (path.name for path in directory.glob(pattern))
    (directory / name).write_text("-----BEGIN NOTHING-----\n")
    with pytest.raises(AuthorityError, match="damaged"):
        SigningAuthority.load(directory)
    (directory / name).unlink()
    with pytest.raises(AuthorityError, match=name):
        SigningAuthority.load(directory)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SigningAuthority.create(tmp_path / "pki", "Placet")
    leaf_key_path(tmp_path / "pki").chmod(0o644)
    with pytest.raises(AuthorityError, match="0600"):
        SigningAuthority.load(tmp_path / "pki")


def test_a_foreign_key_is_refused(tmp_path: Path) -> None:
    SigningAuthority.create(tmp_path / "pki", "Placet")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    leaf_key_path(tmp_path / "pki").write_bytes(pem)
    with pytest.raises(AuthorityError, match="does not belong"):
        SigningAuthority.load(tmp_path / "pki")


def test_a_foreign_intermediate_is_refused(tmp_path: Path) -> None:
    SigningAuthority.create(tmp_path / "pki", "Placet")
    SigningAuthority.create(tmp_path / "other", "Placet")
    (tmp_path / "pki" / "intermediate.pem").write_bytes((tmp_path / "other" / "intermediate.pem").read_bytes())
    with pytest.raises(AuthorityError, match="one chain"):
        SigningAuthority.load(tmp_path / "pki")


def test_an_incomplete_claim_is_refused(unsigned: Path, spec: ManifestSpec, authority: SigningAuthority) -> None:
    with pytest.raises(InvalidManifestSpecError):
        sign(unsigned, unsigned.with_name("out.mp4"), replace(spec, title=""), authority)


# ---- what others signed ----------------------------------------------------------------------------------------------


def test_pictures_are_signed_and_read_too(spec: ManifestSpec, authority: SigningAuthority, tmp_path: Path) -> None:
    picture = cv2.imencode(".jpg", np.full((64, 64, 3), 80, np.uint8))[1].tobytes()
    (tmp_path / "in.jpg").write_bytes(picture)
    sign(tmp_path / "in.jpg", tmp_path / "out.jpg", spec, authority, mime="image/jpeg")
    with io.BytesIO((tmp_path / "out.jpg").read_bytes()) as data:
        assert read_credentials(data.read(), "image/jpeg", authority.root_pem).state == "trusted"


@pytest.mark.needs_data
def test_public_samples_behave_as_their_names_say(shared_data: Path, authority: SigningAuthority) -> None:
    samples = sorted((shared_data / "c2pa").glob("adobe-*.jpg"))
    assert len(samples) == 17
    for path in samples:
        reading = read_credentials(path, "image/jpeg", authority.root_pem)
        code = path.stem.removeprefix("adobe-20220124-")
        if code in ("A", "I"):
            assert reading.state == "absent", code
        elif code.startswith(("E-", "X")):
            assert reading.state == "invalid" and reading.problems, code
        else:
            assert (reading.state, reading.problems) == ("valid", ()), code
