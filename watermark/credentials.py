"""C2PA manifests: signing our own, reading what somebody else signed.

Specification: C2PA Technical Specification 2.4 ("C2PA" below). What is claimed is in `watermark.manifest`, who
claims it in `watermark.authority`; both are offered here too, so that callers need one door only.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import c2pa

from watermark.authority import Clock as Clock
from watermark.authority import SigningAuthority as SigningAuthority
from watermark.errors import SigningError, TimeStampError, UnreadableMediaError, UnsupportedMediaError
from watermark.manifest import AUDIO_SOFT_BINDING_ALGORITHM as AUDIO_SOFT_BINDING_ALGORITHM
from watermark.manifest import COMPOSITE_SOURCE_TYPE as COMPOSITE_SOURCE_TYPE
from watermark.manifest import CONSENT_LABEL as CONSENT_LABEL
from watermark.manifest import DISCLOSURE_LABEL as DISCLOSURE_LABEL
from watermark.manifest import FINGERPRINTS_LABEL as FINGERPRINTS_LABEL
from watermark.manifest import LOG_LABEL as LOG_LABEL
from watermark.manifest import SOFT_BINDING_ALGORITHM as SOFT_BINDING_ALGORITHM
from watermark.manifest import SOFT_BINDING_ALGORITHMS as SOFT_BINDING_ALGORITHMS
from watermark.manifest import SPEC_VERSION as SPEC_VERSION
from watermark.manifest import TRAINED_SOURCE_TYPE as TRAINED_SOURCE_TYPE
from watermark.manifest import Claim as Claim
from watermark.manifest import Ingredient as Ingredient
from watermark.manifest import ManifestSpec as ManifestSpec
from watermark.payload import MarkId

_ACCEPTED_EKUS = "1.3.6.1.5.5.7.3.4\n1.3.6.1.5.5.7.3.36\n1.3.6.1.5.5.7.3.8\n1.3.6.1.4.1.62558.2.1\n"

# ---- signing ---------------------------------------------------------------------------------------------------------


def _settings(trust_roots_pem: str, **builder: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "version": 1,
        "trust": {"trust_config": _ACCEPTED_EKUS},
        "verify": {"verify_after_sign": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        # Without the second one c2pa-rs leaves `free` and `skip` boxes out of the hash, and anybody may add some.
        "builder": {"thumbnail": {"enabled": False}, "bmff_hash_exclude_free_and_skip_boxes": False} | builder,
    }
    if trust_roots_pem.strip():
        settings["trust"]["user_anchors"] = trust_roots_pem
    return settings


def sign(src: Path, dst: Path, spec: Claim, authority: SigningAuthority, *, mime: str = "video/mp4") -> bytes:
    """Write `src` to `dst` with a signed manifest inside, and read it back before saying so.

    Args:
        src: unsigned media.
        dst: another file, overwritten; removed again at any failure.
        spec: what is claimed.
        authority: who claims it.
        mime: of `src`.
    Returns: the manifest store, to be kept by the resolver: it outlives the file's metadata.
    Raises: SigningError, TimeStampError, InvalidManifestSpecError. Nothing is left at `dst` then.
    """
    definition = spec.manifest(mime)
    while True:
        in_force = authority.current()
        try:
            return _sign(src, dst, definition, spec, in_force, mime)
        except SigningError:
            if authority.current() is in_force:
                raise
            # A rotation came between certificate and signature: once more, with the new pair.
            authority = authority.current()


def _sign(
    src: Path, dst: Path, definition: dict[str, Any], spec: Claim, authority: SigningAuthority, mime: str
) -> bytes:
    # (1) the certificate is in force; c2pa-rs would refuse too, with less to say
    authority.check_can_sign()
    num_signatures = 0

    def sign_bytes(data: bytes) -> bytes:
        nonlocal num_signatures
        signature = authority.sign_bytes(data)
        num_signatures += 1
        return signature

    labels = [assertion["label"] for assertion in definition["assertions"]] + ["c2pa.actions", "c2pa.ingredient"]
    try:
        # (2) all our assertions are "created" ones: we vouch for them, C2PA §10.3.2
        context = c2pa.Context.from_dict(_settings(authority.trust_pem, created_assertion_labels=labels))
        builder = c2pa.Builder.from_json(definition, context=context)
        for label, ingredient in spec.ingredients():
            builder.add_ingredient(
                {"title": ingredient.title, "relationship": "inputTo", "label": label},
                ingredient.mime,
                io.BytesIO(ingredient.data),
            )
        signer = c2pa.Signer.from_callback(
            sign_bytes, c2pa.C2paSigningAlg.ES256, authority.chain_pem, authority.tsa_url or None
        )
        with src.open("rb") as source, dst.open("w+b") as target:
            store = builder.sign(signer, mime, source, target)
        # (3) what a verifier with our root would say
        reading = read_credentials(dst, mime, authority.trust_pem)
        if reading.state != "trusted" or reading.mark_id != spec.mark_id:
            raise SigningError(f"The signed file does not verify ({reading.state}): nothing is delivered.")
        # (4) a time stamp that was asked for is there
        if authority.tsa_url and reading.signed_at is None:
            raise TimeStampError(
                "The time stamp is by an authority that is not trusted here: nothing is delivered. Name its issuing "
                "certificate in the setting tsa_roots."
            )
    except BaseException as exc:
        dst.unlink(missing_ok=True)
        if isinstance(exc, c2pa.C2paError) and authority.tsa_url and num_signatures:
            # The key has signed; what c2pa-rs does after that is to ask for the time stamp.
            raise TimeStampError(
                "The time-stamp authority did not answer as RFC 3161 asks: nothing is delivered. Check the setting "
                "tsa_url and the authority behind it, then ask again."
            ) from exc
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
        mark_id: the mark that the manifest says picture or sound carry.
        signer: common name and organisation in the signing certificate.
        signed_at: when, by a time stamp that verifies; None without one. Any other time would be the signer's own word.
        consent, log, fingerprints, disclosure: Placet's own assertions.
        problems: every failed check.
        manifests: every manifest of the store by its label, as the library reports them: what ingredients point to.
    """

    state: CredentialState
    manifest: dict[str, Any] | None = None
    manifest_id: str | None = None
    digital_source_type: str | None = None
    mark_id: MarkId | None = None
    signer: str | None = None
    signed_at: dt.datetime | None = None
    consent: dict[str, Any] | None = None
    log: dict[str, Any] | None = None
    fingerprints: dict[str, Any] | None = None
    disclosure: dict[str, Any] | None = None
    problems: tuple[Problem, ...] = field(default=())
    manifests: dict[str, Any] = field(default_factory=dict)


@contextmanager
def _stream(source: bytes | Path) -> Iterator[io.BufferedIOBase]:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        yield stream


def read_credentials(
    source: bytes | Path, mime: str, trust_roots_pem: str, *, ignored: frozenset[str] = frozenset()
) -> CredentialReading:
    """Verify the C2PA manifest of a media file, offline.

    Args:
        source: the whole file, or where it lies.
        mime: its media type, e.g. "video/mp4".
        trust_roots_pem: root certificates to trust, concatenated; may be empty.
        ignored: status codes of failed checks that do not matter to the caller; see `read_store`.
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
    return _reading(report, ignored)


_CONTENT_CODES = frozenset(
    f"assertion.{kind}.mismatch" for kind in ("bmffHash", "dataHash", "boxesHash", "collectionHash")
)


def read_store(store: bytes, trust_roots_pem: str) -> CredentialReading:
    """Verify a manifest store on its own, as a repository has it: everything but the content that it was made for.

    "trusted" and "valid" speak of the signature and of what it covers; that some file is the one meant has to be shown
    by something else, such as the invisible mark.

    Raises: UnreadableMediaError: this is not a manifest store.
    """
    return read_credentials(store, "application/c2pa", trust_roots_pem, ignored=_CONTENT_CODES)


def _reading(report: dict[str, Any], ignored: frozenset[str]) -> CredentialReading:
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
        if failure.get("code") != "signingCredential.untrusted" and failure.get("code") not in ignored
    )
    state = _state(report, results, bool(problems), ignored)
    assertions = _assertions(manifest)
    signature = manifest.get("signature_info", {})
    names = [str(signature[part]) for part in ("common_name", "issuer") if signature.get(part)]
    return CredentialReading(
        state=state,
        manifest=manifest,
        manifest_id=str(manifest_id),
        digital_source_type=_source_type(assertions),
        mark_id=_bound_mark(manifest),
        signer=", ".join(names) or None,
        signed_at=_time_stamp(signature, results),
        consent=assertions.get(CONSENT_LABEL),
        log=assertions.get(LOG_LABEL),
        fingerprints=assertions.get(FINGERPRINTS_LABEL),
        disclosure=assertions.get(DISCLOSURE_LABEL),
        problems=problems,
        manifests=report.get("manifests", {}),
    )


def _state(
    report: dict[str, Any], results: dict[str, Any], has_problems: bool, ignored: frozenset[str]
) -> CredentialState:
    """The library's verdict, or, where some checks are left out of account, what the others come to."""
    states: dict[str, CredentialState] = {"Trusted": "trusted", "Valid": "valid"}
    if not ignored:
        return states.get(str(report.get("validation_state")), "invalid")
    succeeded = {each.get("code") for each in results.get("activeManifest", {}).get("success", [])}
    if has_problems or "claimSignature.validated" not in succeeded:
        return "invalid"
    return "trusted" if "signingCredential.trusted" in succeeded else "valid"


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


def _bound_mark(manifest: dict[str, Any]) -> MarkId | None:
    """The id in the first soft binding of ours; repeated assertions are named `c2pa.soft-binding__1`."""
    for assertion in manifest.get("assertions", []):
        if not isinstance(assertion, dict) or not str(assertion.get("label")).startswith("c2pa.soft-binding"):
            continue
        binding = assertion.get("data")
        if not isinstance(binding, dict) or binding.get("alg") not in SOFT_BINDING_ALGORITHMS:
            continue
        for block in binding.get("blocks", []):
            value = block.get("value") if isinstance(block, dict) else None
            if isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef"):
                return MarkId.from_hex(value)
    return None


def _time_stamp(signature: dict[str, Any], results: dict[str, Any]) -> dt.datetime | None:
    """The time of a stamp that leads to a trusted root, C2PA §15.8."""
    codes = {each.get("code") for each in results.get("activeManifest", {}).get("success", [])}
    if "timeStamp.trusted" not in codes or not isinstance(signature.get("time"), str):
        return None
    return dt.datetime.fromisoformat(signature["time"])
