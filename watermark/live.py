"""Live streams: every segment of a fragmented MP4 signed on its own, by verifiable segment info (C2PA §19.4).

The manifest in the init segment certifies a session key that lives for this stream only. Each media segment carries,
in an `emsg` box behind its `styp`, a COSE signature by that key over the segment's hash, its number and the time. So a
segment costs one P-256 signature and some 400 bytes, and whoever joins late needs nothing but the init segment.

Cutting the tail off is invisible in that scheme. So a stream ends with a segment without media whose signed info says
how many came before it (`END_FIELD`), also when it ends early because a consent was revoked. Where one process makes
the segments and another lets them out, the end is signed by the one that lets them out (`EndSigner`): it knows how many
have left, and it is still there when the other one has died.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from policy.kms import as_signing_key
from watermark.authority import SigningAuthority, utc_now
from watermark.boxes import (
    Box,
    Superbox,
    bmff_hash,
    child,
    cut,
    is_manifest_store,
    make,
    make_manifest_box,
    make_superbox,
    manifest_store,
)
from watermark.cose import (
    IAT,
    KID,
    X5CHAIN,
    CoseError,
    Sign1,
    decode,
    encode,
    key_of_cose,
    public_cose_key,
    sign1,
    unsigned,
)
from watermark.credentials import CredentialReading, read_credentials
from watermark.errors import (
    ForeignSegmentError,
    InitSegmentError,
    SegmentGapError,
    SegmentReorderedError,
    SegmentReplayedError,
    SegmentSignatureError,
    SegmentTamperedError,
    SessionExpiredError,
    SigningError,
    StreamEndedError,
    StreamTruncatedError,
    UnreadableMediaError,
    UnsignedSegmentError,
    UnsupportedMediaError,
)
from watermark.fragments import tracks
from watermark.manifest import PORTRAIT_LABEL, SPEC_VERSION, ManifestSpec

SCHEME = b"urn:c2pa:verifiable-segment-info"
SESSION_KEYS_LABEL = "c2pa.session-keys"
END_FIELD = "org.placet.end"
"""In the segment info of the last segment: how many segments came before, and why it ends. WIRE FORMAT."""
DEFAULT_VALIDITY_S = 24 * 3600

Sign = Callable[[bytes], bytes]
EndReason = Literal["complete", "revoked", "expired", "stopped", "failed"]
"""All is said; the consent ended; the permitted time is over; service or client broke it off; an error."""


@dataclass(frozen=True)
class Dialect:
    """Where implementations of C2PA §19.4 differ.

    Attributes:
        emsg_value: `value` of the event.
        is_binding_detached: whether the signer binding of the session key leaves its payload out.
    """

    emsg_value: bytes
    is_binding_detached: bool


SPECIFICATION = Dialect(b"fseg", True)
"""The specification's text, §18.25.2 and §19.4.1; c2pa-rs and the Common Media Library read it."""
ENCYPHER = Dialect(b"c2pa", False)
"""What encypher-c2pa 1.7 expects."""
DIALECTS = {"specification": SPECIFICATION, "encypher": ENCYPHER}

_INIT_EXCLUSIONS = [
    {"xpath": "/uuid", "data": [{"offset": 8, "value": bytes.fromhex("d8fec3d61b0e483c92975828877ec481")}]},
    {"xpath": "/ftyp"},
    {"xpath": "/mfra"},
]
_SEGMENT_EXCLUSIONS = [{"xpath": "/emsg", "data": [{"offset": 12, "value": SCHEME}]}]


def _is_segment_info(box: Box) -> bool:
    return box.kind == b"emsg" and box.data[12 : 12 + len(SCHEME)] == SCHEME


# ---- signing ---------------------------------------------------------------------------------------------------------


class LiveSigner:
    """Signs one stream: its init segment once, then segment after segment, then its end.

    Args:
        authority: signs the init segment, and with it the session key.
        spec: what is claimed; ingredients are named, manifests of their own stay with the portrait's enrolment.
        dialect: see `Dialect`.
        validity_s: how long the session key may sign; never beyond the certificate's own end.
        timescale: ticks per second of the events.
        further_keys: entries of session keys that others hold (`EndSigner.entry`), to be certified too.
    """

    def __init__(
        self,
        authority: SigningAuthority,
        spec: ManifestSpec,
        *,
        dialect: Dialect = SPECIFICATION,
        validity_s: int = DEFAULT_VALIDITY_S,
        timescale: int = 0,
        further_keys: Sequence[bytes] = (),
    ) -> None:
        authority.check_can_sign()
        self._authority, self._spec, self._dialect = authority, spec, dialect
        self._key = _SessionSigner(dialect)
        self._further_keys = [decode(entry) for entry in further_keys]
        self._created_at = authority.now().replace(microsecond=0)
        left_s = int((authority.expires_at - self._created_at).total_seconds())
        self._validity_s = min(validity_s, left_s)
        self._timescale = timescale
        self._next_number = 1
        self._has_ended = False
        self.manifest_id = f"urn:c2pa:{uuid.uuid4()}"

    def sign_init(self, init_segment: bytes) -> bytes:
        """The init segment with its manifest behind the `ftyp` box.

        Raises: UnreadableMediaError: it is not one. SigningError: it is signed already, or holds media.
        """
        boxes = cut(init_segment)
        kinds = [box.kind for box in boxes]
        if kinds[:1] != [b"ftyp"] or b"moov" not in kinds:
            raise UnreadableMediaError("An init segment starts with ftyp and holds moov.")
        if b"mdat" in kinds or any(is_manifest_store(box) for box in boxes):
            raise SigningError("The init segment holds media or a manifest already: sign a fresh one.")
        self._timescale = self._timescale or _timescale(init_segment)
        after = len(boxes[0].data)

        def assembled(digest: bytes, sign: Sign) -> bytes:
            return init_segment[:after] + make_manifest_box(self._store(digest, sign)) + init_segment[after:]

        # The hash covers the offsets of boxes, so a draft of the same size comes first.
        draft = assembled(bytes(32), unsigned)
        digest = bmff_hash(draft, lambda box: box.kind in (b"ftyp", b"mfra") or is_manifest_store(box))
        signed = assembled(digest, self._authority.sign_bytes)
        assert len(signed) == len(draft), "the draft must lay the boxes out like the final file"
        reading = read_credentials(signed, "video/mp4", self._authority.root_pem)
        if reading.state != "trusted" or reading.mark_id != self._spec.mark_id:
            raise SigningError(f"The signed init segment does not verify ({reading.state}): nothing is delivered.")
        return signed

    def sign_segment(self, segment: bytes, duration_s: float) -> bytes:
        """The next segment with its signed info behind a leading `styp` box.

        Raises: UnreadableMediaError: it is no media segment. SigningError: the session is over.
        """
        boxes = cut(segment)
        fragment = next((box for box in boxes if box.kind == b"moof"), None)
        if fragment is None:
            raise UnreadableMediaError("A media segment holds a movie fragment.")
        number = child(fragment, b"mfhd")
        if number is None or int.from_bytes(number.body[4:8], "big") != self._next_number:
            raise SigningError("The segment is not the next one of this stream: its fragment has another number.")
        return self._signed(segment, boxes, duration_s, {})

    def end(self, reason: EndReason = "complete") -> bytes:
        """The signed end of the stream: a segment without media. Raises: SigningError: there is one already."""
        signed = self._signed(_END_MARKER, cut(_END_MARKER), 0.0, _end_fields(self.num_signed, reason))
        self._has_ended = True
        return signed

    @property
    def num_signed(self) -> int:
        """Segments signed so far."""
        return self._next_number - 1

    def _signed(self, segment: bytes, boxes: list[Box], duration_s: float, fields: dict[str, Any]) -> bytes:
        now = self._authority.now()
        if self._has_ended:
            raise SigningError("The stream has its signed end: start another one.")
        if not self._created_at <= now <= self._created_at + dt.timedelta(seconds=self._validity_s):
            raise SigningError("The session key has expired: start another stream.")
        info = {"sequenceNumber": self._next_number, "manifestId": self.manifest_id} | fields
        signed = self._key.signed(segment, boxes, info, now=now, timescale=self._timescale, duration_s=duration_s)
        self._next_number += 1
        return signed

    # -- the manifest of the init segment

    def _store(self, digest: bytes, sign: Sign) -> bytes:
        """A manifest store with one manifest, whose hard binding is `digest`; always of the same size."""
        spec = self._spec
        boxes: list[bytes] = []
        created: list[dict[str, Any]] = []

        def add(label: str, data: Any) -> dict[str, Any]:
            """Append an assertion; returns the hashed URI that points to it (C2PA §8.4.2.3)."""
            body = make_superbox(b"cbor", label, make(b"cbor", encode(data)))
            boxes.append(body)
            created.append({"url": f"self#jumbf=c2pa.assertions/{label}", "hash": hashlib.sha256(body[8:]).digest()})
            return created[-1]

        inputs = [
            add(
                "c2pa.ingredient.v3" if label == PORTRAIT_LABEL else f"c2pa.ingredient.v3__{number}",
                {"dc:title": ingredient.title, "dc:format": ingredient.mime, "relationship": "inputTo"},
            )
            for number, (label, ingredient) in enumerate(spec.ingredients())
        ]
        add("c2pa.actions.v2", spec.actions({"ingredients": inputs}))
        count: dict[str, int] = {}
        for assertion in spec.assertions():
            label = assertion["label"]
            count[label] = count.get(label, 0) + 1
            add(label if count[label] == 1 else f"{label}__{count[label] - 1}", assertion["data"])
        add(SESSION_KEYS_LABEL, {"keys": [self._session_key(), *self._further_keys]})
        add(
            "c2pa.hash.bmff.v3",
            {"exclusions": _INIT_EXCLUSIONS, "alg": "sha256", "hash": digest, "name": "init segment"},
        )
        claim = encode(
            {
                "instanceID": f"xmp:iid:{self.manifest_id.removeprefix('urn:c2pa:')}",
                "claim_generator_info": spec.software() | {"specVersion": SPEC_VERSION},
                "signature": f"self#jumbf=/c2pa/{self.manifest_id}/c2pa.signature",
                "created_assertions": created,
                "dc:title": spec.title,
                "alg": "sha256",
            }
        )
        signature = sign1(sign, claim, protected={X5CHAIN: self._authority.chain_der}, is_detached=True)
        manifest = make_superbox(
            b"c2ma",
            self.manifest_id,
            make_superbox(b"c2as", "c2pa.assertions", *boxes),
            make_superbox(b"c2cl", "c2pa.claim.v2", make(b"cbor", claim)),
            make_superbox(b"c2cs", "c2pa.signature", make(b"cbor", encode(signature))),
        )
        return make_superbox(b"c2pa", "c2pa", manifest)

    def _session_key(self) -> dict[str, Any]:
        return self._key.entry(self._authority.chain_der[0], self._created_at, self._validity_s)


class EndSigner:
    """Signs the end of a stream whose segments somebody else signs.

    Give `entry` to that stream's `LiveSigner`, which certifies the key beside its own.

    Args:
        leaf_der: certificate of the claim signer, to which the key is bound.
        now: the time.
        validity_s: how long the key may sign.
    Attributes:
        entry: the key, its validity and its binding, encoded.
    """

    def __init__(
        self,
        leaf_der: bytes,
        now: Callable[[], dt.datetime] = utc_now,
        *,
        dialect: Dialect = SPECIFICATION,
        validity_s: int = DEFAULT_VALIDITY_S,
    ) -> None:
        self._now = now
        self._key = _SessionSigner(dialect)
        self.entry = encode(self._key.entry(leaf_der, now().replace(microsecond=0), validity_s))

    def end(self, manifest_id: str, num_segments: int, reason: EndReason) -> bytes:
        """The signed end: a segment without media.

        Args:
            manifest_id: of the stream.
            num_segments: how many have left before it.
        """
        info = {"sequenceNumber": num_segments + 1, "manifestId": manifest_id} | _end_fields(num_segments, reason)
        return self._key.signed(_END_MARKER, cut(_END_MARKER), info, now=self._now(), timescale=1000, duration_s=0.0)


_END_MARKER = make(b"styp", b"msdh" + bytes(4) + b"msdhmsixcmfs")


def _end_fields(num_segments: int, reason: EndReason) -> dict[str, Any]:
    return {END_FIELD: {"segments": num_segments, "reason": reason}}


class _SessionSigner:
    """A key that lives for one stream, and what it signs."""

    def __init__(self, dialect: Dialect) -> None:
        private_key = ec.generate_private_key(ec.SECP256R1())
        self._key, self._public_key = as_signing_key(private_key), private_key.public_key()
        self._kid = secrets.token_bytes(16)
        self._dialect = dialect

    def entry(self, leaf_der: bytes, created_at: dt.datetime, validity_s: int) -> dict[str, Any]:
        """The key and its binding to the claim signer's certificate, C2PA §18.25.2."""
        is_detached = self._dialect.is_binding_detached
        binding = sign1(self._key.sign, encode(leaf_der) if is_detached else leaf_der, is_detached=is_detached)
        return {
            "key": public_cose_key(self._public_key, self._kid),
            "minSequenceNumber": 1,
            "createdAt": cbor2.CBORTag(0, f"{created_at:%Y-%m-%dT%H:%M:%SZ}"),
            "validityPeriod": validity_s,
            "signerBinding": binding,
        }

    def signed(
        self, segment: bytes, boxes: list[Box], info: dict[str, Any], *, now: dt.datetime, timescale: int,
        duration_s: float,
    ) -> bytes:  # fmt: skip
        """A segment with its signed info behind a leading `styp` box, C2PA §19.4.1."""
        after = len(boxes[0].data) if boxes[0].kind == b"styp" else 0
        timing = struct.pack(">IIII", timescale, 0, round(duration_s * timescale), info["sequenceNumber"])
        header = bytes(4) + SCHEME + b"\0" + self._dialect.emsg_value + b"\0" + timing

        def assembled(digest: bytes, sign: Sign) -> bytes:
            binding = {"exclusions": _SEGMENT_EXCLUSIONS, "alg": "sha256", "hash": digest, "name": "segment"}
            signature = sign1(
                sign,
                encode(info | {"bmffHash": binding}),
                protected={IAT: int(now.timestamp())},
                unprotected={KID: self._kid},
            )
            return segment[:after] + make(b"emsg", header + encode(signature)) + segment[after:]

        digest = bmff_hash(assembled(bytes(32), unsigned), _is_segment_info)
        return assembled(digest, self._key.sign)


def _timescale(init_segment: bytes) -> int:
    """Ticks per second of the picture's track, or of the first track where there is no picture."""
    found = {track.handler: track.timescale for track in reversed(tracks(init_segment))}
    return found.get(b"vide") or next(reversed(found.values()))


# ---- verifying -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentEvidence:
    """What a verified segment proves.

    Attributes:
        number: its place in the stream, from 1.
        signed_at: the signer's clock.
        end: why the stream ends here; None for a segment with media.
    """

    number: int
    signed_at: dt.datetime
    end: str | None = None


@dataclass(frozen=True)
class _SessionKey:
    key: ec.EllipticCurvePublicKey
    kid: bytes
    min_number: int
    created_at: dt.datetime
    expires_at: dt.datetime


class LiveVerifier:
    """Follows one stream, segment by segment, in the order in which they are to be played.

    A refused segment does not end the verification: later ones are judged by their own number.

    Args:
        init_segment: as it came.
        trust_roots_pem: roots to trust; may be empty.
        must_be_trusted: refuse a stream whose signer is unknown.
        first_number: of the first segment that will come; None for who joins late and takes the next one as it is.
    Raises: InitSegmentError.
    """

    def __init__(
        self,
        init_segment: bytes,
        trust_roots_pem: str,
        *,
        must_be_trusted: bool = True,
        first_number: int | None = 1,
    ) -> None:
        # (1) the manifest: signature, chain, hash of the init segment, C2PA §19.7.1
        try:
            self.reading: CredentialReading = read_credentials(init_segment, "video/mp4", trust_roots_pem)
            boxes, store = cut(init_segment), manifest_store(init_segment)
        except (UnreadableMediaError, UnsupportedMediaError) as exc:
            raise InitSegmentError("The init segment cannot be read.") from exc
        if self.reading.state not in ("trusted", "valid") or (must_be_trusted and self.reading.state != "trusted"):
            codes = ", ".join(problem.code for problem in self.reading.problems) or "unknown signer"
            raise InitSegmentError(f"The manifest of the init segment is {self.reading.state}: {codes}.")
        if any(box.kind == b"mdat" for box in boxes):
            raise InitSegmentError("The init segment holds media.")
        # (2) the session keys, bound to the certificate that signed the manifest, C2PA §18.25
        try:
            self._keys = _session_keys(store, self.reading.manifest_id)
        except (CoseError, UnreadableMediaError) as exc:
            raise InitSegmentError(f"The session key of the stream is not valid. {exc}") from exc
        self._expected = first_number
        self._missing: set[int] = set()
        self._ended = False

    def verify(self, segment: bytes) -> SegmentEvidence:
        """Check the next segment. Raises: LiveError; which one says what is wrong."""
        # (1) exactly one signed info, C2PA §19.4.1
        try:
            boxes = cut(segment)
        except UnreadableMediaError as exc:
            raise SegmentTamperedError("The segment does not consist of whole boxes.") from exc
        messages = [box for box in boxes if _is_segment_info(box)]
        if len(messages) != 1:
            raise UnsignedSegmentError(f"The segment carries {len(messages)} signed infos instead of one.")
        # (2) signed by a session key of this stream, §19.7.3
        signature, info, key = self._opened(messages[0])
        # (3) for this stream
        if info.get("manifestId") != self.reading.manifest_id:
            raise ForeignSegmentError("The segment belongs to the stream of another manifest.")
        # (4) these bytes; only the info itself may be left out of the hash
        binding = info.get("bmffHash")
        if not isinstance(binding, dict) or binding.get("alg", "sha256") != "sha256":
            raise SegmentTamperedError("The segment is bound by no hash that is known here.")
        if binding.get("exclusions") != _SEGMENT_EXCLUSIONS or "merkle" in binding:
            raise SegmentTamperedError("The hash of the segment leaves out more than the signed info.")
        if bmff_hash(segment, _is_segment_info) != binding.get("hash"):
            raise SegmentTamperedError("The segment holds other bytes than were signed.")
        # (5) in the session key's time
        signed_at = _moment(signature.header().get(IAT))
        if signed_at is None or not key.created_at <= signed_at <= key.expires_at:
            raise SessionExpiredError("The segment was signed outside the time of the session key.")
        # (6) at its place
        number, end = info.get("sequenceNumber"), info.get(END_FIELD)
        if not isinstance(number, int) or isinstance(number, bool) or number < key.min_number:
            raise SegmentSignatureError("The number of the segment is below those that the session key may sign.")
        self._check_place(number)
        fragment = next((box for box in boxes if box.kind == b"moof"), None)
        if fragment is not None and _fragment_number(fragment) != number:
            raise SegmentTamperedError("The number of the movie fragment is not the one that was signed.")
        if not isinstance(end, dict):
            return SegmentEvidence(number, signed_at)
        # (7) the end, which counts what came before
        if end.get("segments") != number - 1 or fragment is not None:
            raise SegmentSignatureError("The signed end contradicts itself.")
        self._ended = True
        return SegmentEvidence(number, signed_at, str(end.get("reason")))

    def finish(self) -> None:
        """There is no more to come. Raises: StreamTruncatedError: the signed end was not among the segments."""
        if not self._ended:
            raise StreamTruncatedError("The stream stops without its signed end: its tail is missing.")

    def _opened(self, message: Box) -> tuple[Sign1, dict[Any, Any], _SessionKey]:
        """The signature in an `emsg` box, the info that it covers, and the key it is by."""
        _, _, rest = message.body[4:].partition(b"\0")
        value, _, rest = rest.partition(b"\0")
        if message.body[:4] != bytes(4) or value not in {dialect.emsg_value for dialect in DIALECTS.values()}:
            raise UnsignedSegmentError("The event in the segment is not of the form of a signed info.")
        try:
            signature = Sign1.of(decode(rest[16:]))
            kid = signature.unprotected.get(KID)
            key = next((each for each in self._keys if each.kid == kid), None)
            if key is None:
                raise ForeignSegmentError("The segment is signed by a key that this stream does not know.")
            info = decode(signature.verify(key.key))
        except CoseError as exc:
            raise SegmentSignatureError(f"The signature of the segment is not valid. {exc}") from exc
        if not isinstance(info, dict):
            raise SegmentSignatureError("The signed info of the segment is not a map.")
        return signature, info, key

    def _check_place(self, number: int) -> None:
        if self._expected is None:
            self._expected = number
        if number in self._missing:
            self._missing.discard(number)
            raise SegmentReorderedError(f"Segment {number} comes after segment {self._expected - 1}.")
        if number < self._expected:
            raise SegmentReplayedError(f"Segment {number} was there already.")
        if self._ended:
            raise StreamEndedError(f"Segment {number} comes after the signed end of the stream.")
        expected, self._expected = self._expected, number + 1
        if number > expected:
            self._missing |= set(range(max(expected, number - _MAX_MISSING), number))
            raise SegmentGapError(f"Segment {number} comes where segment {expected} should be.")


_MAX_MISSING = 1000


def verify_stream(
    init_segment: bytes, segments: Iterable[bytes], trust_roots_pem: str, *, must_be_trusted: bool = True
) -> list[SegmentEvidence]:
    """Check a whole stream, from its first segment to its signed end. Raises: LiveError: the first thing wrong."""
    verifier = LiveVerifier(init_segment, trust_roots_pem, must_be_trusted=must_be_trusted)
    evidence = [verifier.verify(segment) for segment in segments]
    verifier.finish()
    return evidence


def _session_keys(store: Superbox | None, manifest_id: str | None) -> list[_SessionKey]:
    """Keys whose binding to the claim signer holds. Raises: CoseError, UnreadableMediaError."""
    manifest = store.find(manifest_id) if store is not None and manifest_id is not None else None
    assertions = manifest.find("c2pa.assertions") if manifest is not None else None
    signature = manifest.find("c2pa.signature") if manifest is not None else None
    delivered = [each for each in assertions.superboxes if each.label == SESSION_KEYS_LABEL] if assertions else []
    if signature is None or len(delivered) != 1:
        raise CoseError("The manifest does not deliver session keys exactly once.")
    leaf = _signer_certificate(_cbor(signature))
    entries = _cbor(delivered[0])
    keys = entries.get("keys") if isinstance(entries, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= 16:
        raise CoseError("There is no session key.")
    return [_session_key(entry, leaf) for entry in keys]


def _session_key(entry: Any, leaf: bytes) -> _SessionKey:
    if not isinstance(entry, dict):
        raise CoseError("A session key is not a map.")
    key, kid = key_of_cose(entry.get("key"))
    # The session key signs the certificate of whoever signed it: neither can be swapped, §18.25.2.
    binding = Sign1.of(entry.get("signerBinding"))
    if binding.verify(key, encode(leaf)) not in (leaf, encode(leaf)):
        raise CoseError("The session key is bound to another signer.")
    number, created_at, validity_s = (entry.get(name) for name in ("minSequenceNumber", "createdAt", "validityPeriod"))
    if not (isinstance(number, int) and isinstance(created_at, dt.datetime) and created_at.tzinfo):
        raise CoseError("The session key does not say when it may sign.")
    if not isinstance(validity_s, int) or not 0 < validity_s < 10**9:
        raise CoseError("The session key does not say for how long it may sign.")
    certificate = x509.load_der_x509_certificate(leaf)
    if not certificate.not_valid_before_utc <= created_at <= certificate.not_valid_after_utc:
        raise CoseError("The session key is older or younger than its signer's certificate.")
    return _SessionKey(key, kid, number, created_at, created_at + dt.timedelta(seconds=validity_s))


def _signer_certificate(signature: Any) -> bytes:
    """DER of the end-entity certificate in the claim's signature; it was verified together with the claim."""
    parsed = Sign1.of(signature)
    chain = parsed.header().get(X5CHAIN) or parsed.unprotected.get(X5CHAIN)
    leaf = chain[0] if isinstance(chain, list) and chain else chain
    if not isinstance(leaf, bytes):
        raise CoseError("The claim's signature holds no certificate.")
    return leaf


def _cbor(superbox: Superbox) -> Any:
    if len(superbox.contents) != 1 or superbox.contents[0].kind != b"cbor":
        raise CoseError(f"The box {superbox.label} does not hold one CBOR value.")
    return decode(superbox.contents[0].body)


def _moment(value: Any) -> dt.datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        return None
    return dt.datetime.fromtimestamp(value, dt.UTC)


def _fragment_number(fragment: Box) -> int | None:
    try:
        header = child(fragment, b"mfhd")
    except UnreadableMediaError:
        return None
    return int.from_bytes(header.body[4:8], "big") if header is not None else None
