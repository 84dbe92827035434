"""C2PA manifests: the instance's own certificate authority, signing, and reading what somebody else signed.

Specification: C2PA Technical Specification 2.4 ("C2PA" below); certificates as its Trust Model (§14) and the
conformance programme's assurance level 1 ask: ES256, at most 366 days, digitalSignature + nonRepudiation.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import c2pa
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from watermark.errors import (
    AuthorityError,
    InvalidManifestSpecError,
    SigningError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from watermark.payload import MarkId

SOFT_BINDING_ALGORITHM = "org.placet.watermark.chroma.1"
"""Name of the invisible mark in soft-binding assertions. WIRE FORMAT: a changed mark gets a new name."""
CONSENT_LABEL = "org.placet.consent"
LOG_LABEL = "org.placet.log"
FINGERPRINTS_LABEL = "org.placet.fingerprints"
SPEC_VERSION = "2.4.0"
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
COMPOSITE_SOURCE_TYPE = _SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""The photograph is kept and a trained model moves it: IPTC NewsCodes, digital source type."""

_C2PA_CLAIM_SIGNING = ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
_DOCUMENT_SIGNING = ObjectIdentifier("1.3.6.1.5.5.7.3.36")
_ACCEPTED_EKUS = "1.3.6.1.5.5.7.3.4\n1.3.6.1.5.5.7.3.36\n1.3.6.1.5.5.7.3.8\n1.3.6.1.4.1.62558.2.1\n"
_LEAF_DAYS, _INTERMEDIATE_DAYS, _ROOT_DAYS = 365, 1825, 3650
_BACKDATE = dt.timedelta(hours=1)  # for readers whose clock is behind

_FILES = ("root.pem", "root.key", "intermediate.pem", "intermediate.key", "leaf.pem", "leaf.key")

Clock = Callable[[], dt.datetime]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


# ---- the certificate authority of one instance -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _issue(
    common_name: str,
    days: int,
    now: dt.datetime,
    *,
    issuer: _Issuer | None,
    path_length: int | None,
    is_authority: bool,
) -> _Issuer:
    """A fresh P-256 key and its certificate; self-signed without an `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Placet local instance"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    signing_key = issuer.key if issuer else key
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=not is_authority,  # the field's newer name for nonRepudiation, RFC 5280 §4.2.1.3
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now - _BACKDATE + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_authority, path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
        .add_extension(usage, critical=True)
    )
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([_C2PA_CLAIM_SIGNING, _DOCUMENT_SIGNING]), critical=False)
    return _Issuer(builder.sign(signing_key, hashes.SHA256()), key)


def _write_private(path: Path, data: bytes) -> None:
    """Write atomically, readable by the owner alone."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class SigningAuthority:
    """Root → intermediate → leaf, and the act of signing with the leaf key.

    The leaf key is used through a callback, so that a key service or hardware module can take its place. Readers that
    are given `root_pem` call what it signs *Trusted*; all others say *Valid*, which claims no identity.

    Attributes:
        root_pem: the root certificate, to be handed to whoever verifies.
        chain_pem: leaf and intermediate, as embedded in every manifest.
    """

    def __init__(self, *, root_pem: str, chain_pem: str, leaf_key: ec.EllipticCurvePrivateKey, now: Clock) -> None:
        self.root_pem, self.chain_pem, self._leaf_key, self._now = root_pem, chain_pem, leaf_key, now
        self._leaf = x509.load_pem_x509_certificates(chain_pem.encode())[0]

    @classmethod
    def create(cls, directory: Path, common_name: str, *, now: Clock = _utc_now) -> SigningAuthority:
        """Make a new authority below `directory` (0700; files 0600).

        The root key is only needed for a new intermediate: take `root.key` off the machine in a lasting deployment.
        Raises: AuthorityError: there is one already.
        """
        if any((directory / name).exists() for name in _FILES):
            raise AuthorityError("There is a signing authority here already. Remove its directory first, or load it.")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        root = _issue(f"{common_name} root", _ROOT_DAYS, now(), issuer=None, path_length=None, is_authority=True)
        intermediate = _issue(
            f"{common_name} intermediate", _INTERMEDIATE_DAYS, now(), issuer=root, path_length=0, is_authority=True
        )
        for name, made in (("root", root), ("intermediate", intermediate)):
            _write_private(directory / f"{name}.key", _key_pem(made.key))
            _write_private(directory / f"{name}.pem", made.certificate.public_bytes(Encoding.PEM))
        _renew_leaf(directory, common_name, intermediate, now())
        return cls.load(directory, now=now)

    @classmethod
    def load(cls, directory: Path, *, now: Clock = _utc_now) -> SigningAuthority:
        """Open the authority below `directory`. An expired leaf loads, and then refuses to sign.

        Raises: AuthorityError: a file is missing, unreadable, readable by others, or the parts do not belong together.
        """
        # (1) the files, and nobody else's eyes on the key
        key_path = directory / "leaf.key"
        try:
            if key_path.stat().st_mode & 0o077:
                raise AuthorityError("The signing key can be read by other users. Set its mode to 0600.")
            root, intermediate, leaf = (
                x509.load_pem_x509_certificate((directory / name).read_bytes())
                for name in ("root.pem", "intermediate.pem", "leaf.pem")
            )
            key = load_pem_private_key(key_path.read_bytes(), None)
        except OSError as exc:
            raise AuthorityError(
                f"The signing authority is incomplete ({Path(exc.filename or '').name} cannot be read). "
                "Restore the file, or create a new authority."
            ) from exc
        except (ValueError, TypeError) as exc:
            raise AuthorityError("A file of the signing authority is damaged. Restore it from a backup.") from exc
        # (2) the key is the leaf's, and the chain holds
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != leaf.public_key():
            raise AuthorityError("The signing key does not belong to the leaf certificate.")
        try:
            leaf.verify_directly_issued_by(intermediate)
            intermediate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature) as exc:
            raise AuthorityError("The certificates of the signing authority are not one chain.") from exc
        pem = [certificate.public_bytes(Encoding.PEM).decode() for certificate in (root, leaf, intermediate)]
        return cls(root_pem=pem[0], chain_pem=pem[1] + pem[2], leaf_key=key, now=now)

    @classmethod
    def renew(cls, directory: Path, common_name: str, *, now: Clock = _utc_now) -> SigningAuthority:
        """Replace the leaf key and certificate; to be done well before a year has passed."""
        try:
            certificate = x509.load_pem_x509_certificate((directory / "intermediate.pem").read_bytes())
            key = load_pem_private_key((directory / "intermediate.key").read_bytes(), None)
        except (OSError, ValueError, TypeError) as exc:
            raise AuthorityError("The intermediate certificate or its key cannot be read.") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError("The intermediate key is not a P-256 key.")
        _renew_leaf(directory, common_name, _Issuer(certificate, key), now())
        return cls.load(directory, now=now)

    @property
    def expires_at(self) -> dt.datetime:
        return self._leaf.not_valid_after_utc

    @property
    def signer_name(self) -> str:
        return str(self._leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def check_can_sign(self) -> None:
        """Raises: SigningError: the leaf certificate is not in force now."""
        if not self._leaf.not_valid_before_utc <= self._now() < self._leaf.not_valid_after_utc:
            raise SigningError(
                f"The signing certificate is in force from {self._leaf.not_valid_before_utc:%Y-%m-%d} to "
                f"{self._leaf.not_valid_after_utc:%Y-%m-%d} only. Renew it; nothing is delivered until then."
            )

    def sign_bytes(self, data: bytes) -> bytes:
        """ES256 over `data`: r and s, 32 bytes each (RFC 9053 §2.1)."""
        r, s = decode_dss_signature(self._leaf_key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _renew_leaf(directory: Path, common_name: str, intermediate: _Issuer, now: dt.datetime) -> None:
    leaf = _issue(
        f"{common_name} claim signer", _LEAF_DAYS, now, issuer=intermediate, path_length=None, is_authority=False
    )
    _write_private(directory / "leaf.key", _key_pem(leaf.key))
    _write_private(directory / "leaf.pem", leaf.certificate.public_bytes(Encoding.PEM))


# ---- signing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ingredient:
    """Something the output was made from; a manifest that it carries is kept with it."""

    data: bytes
    mime: str
    title: str


@dataclass(frozen=True)
class ManifestSpec:
    """What is claimed about one output.

    Attributes:
        title: the name readers show.
        portrait, speech: what went in.
        mark_id: the invisible mark in the frames, bound as a soft binding.
        consent: hash, purpose, grantee and expiry of the consent that permits this use; never personal data. None for
            synthetic persons and artworks.
        log: entry index, inclusion proof and checkpoint of the decision to permit it.
        software_version: of Placet.
        fingerprints: what the content looks and sounds like, second by second, or None.
    """

    title: str
    portrait: Ingredient
    speech: Ingredient
    mark_id: MarkId
    consent: dict[str, Any] | None
    log: dict[str, Any]
    software_version: str
    fingerprints: dict[str, Any] | None = None

    def manifest(self, mime: str) -> dict[str, Any]:
        """The manifest definition for c2pa-rs. Raises: InvalidManifestSpecError."""
        if not self.title or not self.software_version:
            raise InvalidManifestSpecError("A manifest needs a title and the software's version.")
        software = {"name": "Placet", "version": self.software_version}
        not_allowed = {"use": "notAllowed"}
        assertions: list[dict[str, Any]] = [
            {
                "label": "c2pa.actions.v2",  # C2PA §18.15
                "data": {
                    "actions": [
                        {
                            "action": "c2pa.created",
                            "digitalSourceType": COMPOSITE_SOURCE_TYPE,
                            "softwareAgent": software,
                            "parameters": {"ingredientIds": ["portrait", "speech"]},
                        },
                        {"action": "c2pa.watermarked.bound", "softwareAgent": software},
                    ],
                    "allActionsIncluded": True,
                },
            },
            {
                "label": "c2pa.soft-binding",  # C2PA §18.10
                "data": {
                    "alg": SOFT_BINDING_ALGORITHM,
                    "blocks": [{"scope": {}, "value": self.mark_id.hex}],
                },
            },
            {
                "label": "cawg.training-mining",
                "data": {
                    "entries": {
                        "cawg.ai_generative_training": not_allowed,
                        "cawg.ai_training": not_allowed,
                        "cawg.ai_inference": not_allowed,
                        "cawg.data_mining": not_allowed,
                    }
                },
            },
            {"label": LOG_LABEL, "data": self.log},
        ]
        if self.consent is not None:
            assertions.append({"label": CONSENT_LABEL, "data": self.consent})
        if self.fingerprints is not None:
            assertions.append({"label": FINGERPRINTS_LABEL, "data": self.fingerprints})
        return {
            "claim_generator_info": [software | {"specVersion": SPEC_VERSION}],
            "title": self.title,
            "format": mime,
            "assertions": assertions,
        }


def _settings(trust_roots_pem: str, **builder: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "version": 1,
        "trust": {"trust_config": _ACCEPTED_EKUS},
        "verify": {"verify_after_sign": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        "builder": {"thumbnail": {"enabled": False}} | builder,
    }
    if trust_roots_pem.strip():
        settings["trust"]["user_anchors"] = trust_roots_pem
    return settings


def sign(src: Path, dst: Path, spec: ManifestSpec, authority: SigningAuthority, *, mime: str = "video/mp4") -> bytes:
    """Write `src` to `dst` with a signed manifest inside, and read it back before saying so.

    Args:
        src: unsigned media.
        dst: another file, overwritten; removed again at any failure.
        spec: what is claimed.
        authority: who claims it.
        mime: of `src`.
    Returns: the manifest store, to be kept by the resolver: it outlives the file's metadata.
    Raises: SigningError, InvalidManifestSpecError. Nothing is left at `dst` then.
    """
    # (1) the certificate is in force; c2pa-rs would refuse too, with less to say
    authority.check_can_sign()
    definition = spec.manifest(mime)
    labels = [assertion["label"] for assertion in definition["assertions"]] + ["c2pa.actions", "c2pa.ingredient"]
    try:
        # (2) all our assertions are "created" ones: we vouch for them, C2PA §10.3.2
        context = c2pa.Context.from_dict(_settings(authority.root_pem, created_assertion_labels=labels))
        builder = c2pa.Builder.from_json(definition, context=context)
        for label, ingredient in (("portrait", spec.portrait), ("speech", spec.speech)):
            builder.add_ingredient(
                {"title": ingredient.title, "relationship": "inputTo", "label": label},
                ingredient.mime,
                io.BytesIO(ingredient.data),
            )
        signer = c2pa.Signer.from_callback(authority.sign_bytes, c2pa.C2paSigningAlg.ES256, authority.chain_pem, None)
        with src.open("rb") as source, dst.open("w+b") as target:
            store = builder.sign(signer, mime, source, target)
        # (3) what a verifier with our root would say
        reading = read_credentials(dst, mime, authority.root_pem)
        if reading.state != "trusted" or reading.mark_id != spec.mark_id:
            raise SigningError(f"The signed file does not verify ({reading.state}): nothing is delivered.")
    except BaseException as exc:
        dst.unlink(missing_ok=True)
        if isinstance(exc, c2pa.C2paError | OSError):
            raise SigningError(
                f"The manifest could not be signed ({type(exc).__name__}): nothing is delivered. "
                "Check the ingredients and the signing authority."
            ) from exc
        raise
    return bytes(store)


# ---- reading ---------------------------------------------------------------------------------------------------------

CredentialState = Literal["trusted", "valid", "invalid", "absent"]


@dataclass(frozen=True)
class Problem:
    """One failed check: the status code of C2PA §15.2, and the library's words."""

    code: str
    explanation: str


@dataclass(frozen=True)
class CredentialReading:
    """What the manifest of a file says, and how far it can be believed.

    Attributes:
        state: "trusted": signed under one of the given roots, content untouched; "valid": content untouched, signer
            unknown; "invalid": see `problems`; "absent": there is no manifest, which proves nothing.
        manifest: the active manifest as the library reports it; claims of an invalid one are worth nothing.
        manifest_id: its label (urn:c2pa:...).
        digital_source_type: of the action that created the content.
        mark_id: the invisible mark that the manifest says the frames carry.
        signer: common name and organisation in the signing certificate.
        consent, log: Placet's own assertions.
        problems: every failed check.
    """

    state: CredentialState
    manifest: dict[str, Any] | None = None
    manifest_id: str | None = None
    digital_source_type: str | None = None
    mark_id: MarkId | None = None
    signer: str | None = None
    consent: dict[str, Any] | None = None
    log: dict[str, Any] | None = None
    problems: tuple[Problem, ...] = field(default=())


@contextmanager
def _stream(source: bytes | Path) -> Iterator[io.BufferedIOBase]:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        yield stream


def read_credentials(source: bytes | Path, mime: str, trust_roots_pem: str) -> CredentialReading:
    """Verify the C2PA manifest of a media file, offline.

    Args:
        source: the whole file, or where it lies.
        mime: its media type, e.g. "video/mp4".
        trust_roots_pem: root certificates to trust, concatenated; may be empty.
    Raises: UnsupportedMediaError: no manifests are read in files of this type. UnreadableMediaError: the file is too
        damaged to tell.
    """
    try:
        context = c2pa.Context.from_dict(_settings(trust_roots_pem))
        with _stream(source) as stream:
            report = json.loads(c2pa.Reader(mime, stream, context=context).json())
    except c2pa.C2paError.ManifestNotFound:
        return CredentialReading("absent")
    except c2pa.C2paError.NotSupported as exc:
        raise UnsupportedMediaError(f"Manifests cannot be read in files of type {mime}.") from exc
    except (c2pa.C2paError.Io, c2pa.C2paError.Decoding) as exc:
        raise UnreadableMediaError("The file is too damaged to look for a manifest in it.") from exc
    except c2pa.C2paError as exc:
        if type(exc) is c2pa.C2paError or "asset could not be parsed" in str(exc):
            raise UnreadableMediaError(f"The file is not readable as {mime}.") from exc
        # A manifest store that is there, but broken beyond the validator's own report.
        return CredentialReading("invalid", problems=(Problem("manifest.unreadable", type(exc).__name__),))
    return _reading(report)


def _reading(report: dict[str, Any]) -> CredentialReading:
    manifest_id = report.get("active_manifest")
    manifest = report.get("manifests", {}).get(manifest_id) if manifest_id else None
    if manifest is None:
        return CredentialReading("invalid", problems=(Problem("claim.missing", "There is no active manifest."),))
    results = report.get("validation_results", {})
    failures = list(results.get("activeManifest", {}).get("failure", []))
    for delta in results.get("ingredientDeltas", []):
        failures += delta.get("validationDeltas", {}).get("failure", [])
    # An unknown signer is what tells "valid" from "trusted", not a flaw of the file.
    problems = tuple(
        Problem(str(failure.get("code", "unknown")), str(failure.get("explanation", "")))
        for failure in failures
        if failure.get("code") != "signingCredential.untrusted"
    )
    state: CredentialState = {"Trusted": "trusted", "Valid": "valid"}.get(report.get("validation_state", ""), "invalid")  # type: ignore[assignment]
    assertions = _assertions(manifest)
    signature = manifest.get("signature_info", {})
    names = [str(signature[part]) for part in ("common_name", "issuer") if signature.get(part)]
    return CredentialReading(
        state=state,
        manifest=manifest,
        manifest_id=str(manifest_id),
        digital_source_type=_source_type(assertions),
        mark_id=_bound_mark(assertions),
        signer=", ".join(names) or None,
        consent=assertions.get(CONSENT_LABEL),
        log=assertions.get(LOG_LABEL),
        problems=problems,
    )


def _assertions(manifest: dict[str, Any]) -> dict[str, Any]:
    """Assertion data by label; the first of a repeated label (`label__1`) counts."""
    found: dict[str, Any] = {}
    for assertion in manifest.get("assertions", []):
        if isinstance(assertion, dict) and isinstance(assertion.get("data"), dict):
            found.setdefault(str(assertion.get("label")), assertion["data"])
    return found


def _source_type(assertions: dict[str, Any]) -> str | None:
    for label in ("c2pa.actions.v2", "c2pa.actions"):
        for action in assertions.get(label, {}).get("actions", []):
            if isinstance(action, dict) and action.get("digitalSourceType"):
                return str(action["digitalSourceType"])
    return None


def _bound_mark(assertions: dict[str, Any]) -> MarkId | None:
    binding = assertions.get("c2pa.soft-binding", {})
    if binding.get("alg") != SOFT_BINDING_ALGORITHM:
        return None
    for block in binding.get("blocks", []):
        value = block.get("value") if isinstance(block, dict) else None
        if isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef"):
            return MarkId.from_hex(value)
    return None
