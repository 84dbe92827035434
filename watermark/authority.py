"""The certificate authority of one instance: root, intermediate, claim signer, time stamper; and who holds the key.

Certificates follow the C2PA Trust Model (§14) and assurance level 1 of the conformance programme: ES256, at most 366
days, digitalSignature + nonRepudiation, the extended key usage of C2PA claim signing, the address of an OCSP responder.

On disk, below one directory (0700, files 0600)::

    root.pem root.key                    trust anchor; the key may leave the machine
    intermediate.pem intermediate.key    issues leaves
    leaf.pem                             the claim signer in force: replacing this one file is the rotation
    leaf-<kid>.key                    its private key; absent where a key service holds it
    tsa.pem tsa.key                      the embedded time-stamp authority
    ocsp.pem ocsp.key                    says whether a leaf is revoked; see `watermark.ocsp`
    issued.pem                           every leaf that was ever issued, appended to
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from policy.kms import LocalSigningKey, SigningKey, as_signing_key, public_kid
from watermark.errors import AuthorityError, SigningError

C2PA_CLAIM_SIGNING = ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
_LEAF_DAYS, _INTERMEDIATE_DAYS, _ROOT_DAYS, _TSA_DAYS, _OCSP_DAYS = 365, 1825, 3650, 3650, 1825
_BACKDATE = dt.timedelta(hours=1)  # for readers whose clock is behind
_FILES = ("root.pem", "root.key", "intermediate.pem", "intermediate.key", "leaf.pem", "tsa.pem", "tsa.key", "ocsp.pem")
ISSUED = "issued.pem"

Clock = Callable[[], dt.datetime]


def utc_now() -> dt.datetime:
    """The clock of the machine."""
    return dt.datetime.now(dt.UTC)


# ---- issuing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class _Profile:
    """What a certificate is for."""

    days: int
    is_authority: bool = False
    path_length: int | None = None
    purpose: ObjectIdentifier | None = None
    is_non_repudiable: bool = False
    ocsp_url: str = ""


def _certify(
    common_name: str,
    public_key: ec.EllipticCurvePublicKey,
    profile: _Profile,
    now: dt.datetime,
    *,
    issuer: x509.Name | None,
    signing_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """A certificate over `public_key`; self-signed without an `issuer`."""
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Placet local instance")
    name = x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = x509.KeyUsage(
        digital_signature=not profile.is_authority,
        content_commitment=profile.is_non_repudiable,  # the field's newer name for nonRepudiation, RFC 5280 §4.2.1.3
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=profile.is_authority,
        crl_sign=profile.is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now - _BACKDATE + dt.timedelta(days=profile.days))
        .add_extension(x509.BasicConstraints(profile.is_authority, profile.path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key_id, critical=False)
        .add_extension(usage, critical=True)
    )
    if profile.purpose is not None:
        # A time stamper's purpose is critical and alone, RFC 3161 §2.3.
        is_critical = profile.purpose == ExtendedKeyUsageOID.TIME_STAMPING
        builder = builder.add_extension(x509.ExtendedKeyUsage([profile.purpose]), critical=is_critical)
    if profile.purpose == ExtendedKeyUsageOID.OCSP_SIGNING:
        # Nobody need ask whether the one who answers is revoked, RFC 6960 §4.2.2.2.1.
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    if profile.ocsp_url:
        responder = x509.UniformResourceIdentifier(profile.ocsp_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, responder)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return builder.sign(signing_key, hashes.SHA256())


def _issue(common_name: str, profile: _Profile, now: dt.datetime, issuer: _Issuer | None) -> _Issuer:
    """A fresh key with its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certify(
        common_name,
        key.public_key(),
        profile,
        now,
        issuer=issuer.certificate.subject if issuer else None,
        signing_key=issuer.key if issuer else key,
    )
    return _Issuer(certificate, key)


def write_private(path: Path, data: bytes) -> None:
    """Write atomically, readable by the owner alone."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A P-256 key that only its owner can read. Raises: AuthorityError."""
    try:
        if path.stat().st_mode & 0o077:
            raise AuthorityError(f"The key {path.name} can be read by other users. Set its mode to 0600.")
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as exc:
        raise _incomplete(path) from exc
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise _damaged() from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"The key {path.name} is not a P-256 key.")
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """Raises: AuthorityError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as exc:
        raise _incomplete(path) from exc
    except ValueError as exc:
        raise _damaged() from exc


def _incomplete(path: Path) -> AuthorityError:
    return AuthorityError(
        f"The signing authority is incomplete ({path.name} cannot be read). "
        "Restore the file, or create a new authority."
    )


def _damaged() -> AuthorityError:
    return AuthorityError("A file of the signing authority is damaged. Restore it from a backup.")


# ---- the authority ---------------------------------------------------------------------------------------------------


class SigningAuthority:
    """The claim signer in force and the chain above it. Immutable: `current` answers a newer one after a rotation.

    The leaf key is any `policy.kms.SigningKey`, so that a key service or hardware module can hold it. Readers that are
    given `root_pem` call what it signs *Trusted*; all others say *Valid*, which claims no identity.

    Attributes:
        root_pem: the root certificate, to be handed to whoever verifies.
        chain_pem: leaf and intermediate, as embedded in every manifest.
        tsa_url: the RFC 3161 time-stamp authority that every signature must pass, or "" for none.
        trust_pem: the root, and the certificates under which time stamps are believed. c2pa-rs does not keep the two
            apart: to name an authority of somebody else, give its issuing certificate, never a root that issues
            signing certificates too.
    """

    def __init__(
        self,
        *,
        root_pem: str,
        chain_pem: str,
        leaf_key: SigningKey,
        now: Clock = utc_now,
        tsa_url: str = "",
        tsa_roots_pem: str = "",
        directory: Path | None = None,
    ) -> None:
        self.root_pem, self.chain_pem, self.tsa_url = root_pem, chain_pem, tsa_url
        self.trust_pem = root_pem + tsa_roots_pem
        self._leaf_key, self._now, self._directory = leaf_key, now, directory
        self._leaf = x509.load_pem_x509_certificates(chain_pem.encode())[0]

    @classmethod
    def create(
        cls,
        directory: Path,
        common_name: str,
        *,
        now: Clock = utc_now,
        ocsp_url: str = "",
        key: SigningKey | None = None,
    ) -> SigningAuthority:
        """Make a new authority below `directory`.

        The root key is only needed for a new intermediate: take `root.key` off the machine in a lasting deployment.

        Args:
            ocsp_url: where a reader may ask whether the leaf is revoked; named in the leaf.
            key: the claim signer's key in a key service; None makes one on disk.
        Raises: AuthorityError: there is one already, or the key is not an ES256 key.
        """
        if any((directory / name).exists() for name in _FILES):
            raise AuthorityError("There is a signing authority here already. Remove its directory first, or load it.")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        root = _issue(f"{common_name} root", _Profile(_ROOT_DAYS, is_authority=True), now(), None)
        intermediate_profile = _Profile(_INTERMEDIATE_DAYS, is_authority=True, path_length=0)
        intermediate = _issue(f"{common_name} intermediate", intermediate_profile, now(), root)
        stamping = _Profile(_TSA_DAYS, purpose=ExtendedKeyUsageOID.TIME_STAMPING)
        stamper = _issue(f"{common_name} time stamps", stamping, now(), root)
        answering = _Profile(_OCSP_DAYS, purpose=ExtendedKeyUsageOID.OCSP_SIGNING)
        responder = _issue(f"{common_name} revocations", answering, now(), intermediate)
        made_now = (("root", root), ("intermediate", intermediate), ("tsa", stamper), ("ocsp", responder))
        for name, made in made_now:
            write_private(directory / f"{name}.key", _key_pem(made.key))
            write_private(directory / f"{name}.pem", made.certificate.public_bytes(Encoding.PEM))
        _put_leaf(directory, common_name, intermediate, now(), ocsp_url, key)
        return cls.load(directory, now=now, key=key)

    @classmethod
    def load(cls, directory: Path, *, now: Clock = utc_now, key: SigningKey | None = None) -> SigningAuthority:
        """Open the authority below `directory`. An expired leaf loads, and then refuses to sign.

        Args:
            key: the leaf's key, where a key service holds it.
        Raises: AuthorityError: a file is missing, unreadable, readable by others, or the parts do not belong together.
        """
        # (1) the files, and nobody else's eyes on the key
        root, intermediate = (load_certificate(directory / name) for name in ("root.pem", "intermediate.pem"))
        leaf, key = _leaf_in_force(directory, key)
        # (2) the key is the leaf's, and the chain holds
        if key.algorithm != "ES256" or key.public_key != leaf.public_key():
            raise AuthorityError("The signing key does not belong to the leaf certificate.")
        try:
            leaf.verify_directly_issued_by(intermediate)
            intermediate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature) as exc:
            raise AuthorityError("The certificates of the signing authority are not one chain.") from exc
        pem = [certificate.public_bytes(Encoding.PEM).decode() for certificate in (root, leaf, intermediate)]
        return cls(root_pem=pem[0], chain_pem=pem[1] + pem[2], leaf_key=key, now=now, directory=directory)

    @classmethod
    def renew(
        cls,
        directory: Path,
        common_name: str = "",
        *,
        now: Clock = utc_now,
        ocsp_url: str = "",
        key: SigningKey | None = None,
    ) -> SigningAuthority:
        """Replace the leaf key and certificate; to be done well before a year has passed.

        Nothing has to stop for it: what was signed before carries its own certificates and stays trusted, and whoever
        signs picks the new leaf up through `current`.

        Args:
            common_name: of the instance; by default as the present leaf has it.
            ocsp_url: by default as the present leaf has it.
            key: the new key, where a key service holds it.
        """
        before = load_certificate(directory / "leaf.pem")
        intermediate = _Issuer(
            load_certificate(directory / "intermediate.pem"), load_private_key(directory / "intermediate.key")
        )
        name = common_name or _common_name(before).removesuffix(_LEAF_SUFFIX)
        _put_leaf(directory, name, intermediate, now(), ocsp_url or ocsp_url_of(before), key)
        return cls.load(directory, now=now, key=key)

    def current(self) -> SigningAuthority:
        """This authority, or the one that a rotation has put in its place. Raises: AuthorityError."""
        if self._directory is None:
            return self
        leaf = load_certificate(self._directory / "leaf.pem")
        if leaf == self._leaf:
            return self
        held = None if isinstance(self._leaf_key, LocalSigningKey) else self._leaf_key
        newer = SigningAuthority.load(self._directory, now=self._now, key=held)
        return newer.with_time_stamps(self.tsa_url, self.trust_pem.removeprefix(self.root_pem))

    def with_time_stamps(self, tsa_url: str, tsa_roots_pem: str = "") -> SigningAuthority:
        """The same authority, whose signatures are time-stamped by `tsa_url`; "" for none."""
        return SigningAuthority(
            root_pem=self.root_pem,
            chain_pem=self.chain_pem,
            leaf_key=self._leaf_key,
            now=self._now,
            tsa_url=tsa_url,
            tsa_roots_pem=tsa_roots_pem,
            directory=self._directory,
        )

    @property
    def leaf(self) -> x509.Certificate:
        """The claim signer's certificate."""
        return self._leaf

    @property
    def chain_der(self) -> list[bytes]:
        """Leaf and intermediate, as COSE `x5chain` wants them (RFC 9360 §2)."""
        certificates = x509.load_pem_x509_certificates(self.chain_pem.encode())
        return [certificate.public_bytes(Encoding.DER) for certificate in certificates]

    @property
    def expires_at(self) -> dt.datetime:
        return self._leaf.not_valid_after_utc

    @property
    def signer_name(self) -> str:
        return _common_name(self._leaf)

    def now(self) -> dt.datetime:
        """The authority's clock."""
        return self._now()

    def check_can_sign(self) -> None:
        """Raises: SigningError: the leaf certificate is not in force now."""
        if not self._leaf.not_valid_before_utc <= self._now() < self._leaf.not_valid_after_utc:
            raise SigningError(
                f"The signing certificate is in force from {self._leaf.not_valid_before_utc:%Y-%m-%d} to "
                f"{self._leaf.not_valid_after_utc:%Y-%m-%d} only. Renew it; nothing is delivered until then."
            )

    def sign_bytes(self, data: bytes) -> bytes:
        """ES256 over `data`: r and s, 32 bytes each (RFC 9053 §2.1)."""
        return self._leaf_key.sign(data)


_LEAF_SUFFIX = " claim signer"


def _leaf_in_force(directory: Path, key: SigningKey | None) -> tuple[x509.Certificate, SigningKey]:
    """The leaf, and its key from disk where no key service holds it.

    A rotation may take the key away between the two reads; then there is a newer leaf to be read.
    """
    leaf = load_certificate(directory / "leaf.pem")
    while key is None:
        public_key = leaf.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise AuthorityError("The leaf certificate is not over a P-256 key.")
        try:
            key = as_signing_key(load_private_key(directory / f"leaf-{public_kid(public_key)}.key"))
        except AuthorityError:
            newer = load_certificate(directory / "leaf.pem")
            if newer == leaf:
                raise
            leaf = newer
    return leaf, key


def _put_leaf(
    directory: Path,
    common_name: str,
    intermediate: _Issuer,
    now: dt.datetime,
    ocsp_url: str,
    key: SigningKey | None,
) -> None:
    """Certify a key and put it in force: first the key, then, by one rename, the certificate; then older keys go."""
    profile = _Profile(_LEAF_DAYS, purpose=C2PA_CLAIM_SIGNING, is_non_repudiable=True, ocsp_url=ocsp_url)
    private = ec.generate_private_key(ec.SECP256R1()) if key is None else None
    public_key = private.public_key() if private is not None else key.public_key if key is not None else None
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        raise AuthorityError("Manifests are signed with ES256: the key service must hold a P-256 key for it.")
    kept = f"leaf-{public_kid(public_key)}.key"
    if private is not None:
        write_private(directory / kept, _key_pem(private))
    leaf = _certify(
        common_name + _LEAF_SUFFIX,
        public_key,
        profile,
        now,
        issuer=intermediate.certificate.subject,
        signing_key=intermediate.key,
    )
    before = (directory / ISSUED).read_bytes() if (directory / ISSUED).exists() else b""
    write_private(directory / ISSUED, before + leaf.public_bytes(Encoding.PEM))
    write_private(directory / "leaf.pem", leaf.public_bytes(Encoding.PEM))
    for path in directory.glob("leaf-*.key"):
        if path.name != kept:
            path.unlink()


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def ocsp_url_of(certificate: x509.Certificate) -> str:
    """Where a certificate says that its revocation can be asked for; "" if nowhere."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return ""
    found = [each for each in access if each.access_method == AuthorityInformationAccessOID.OCSP]
    return str(found[0].access_location.value) if found else ""
