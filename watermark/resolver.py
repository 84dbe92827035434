"""Soft bindings to manifests: the values and answers of the C2PA Soft Binding Resolution API 1.0, without its HTTP.

Pure functions. `api.resolver` looks things up, `api.routes.softbinding` speaks HTTP.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from watermark.boxes import cut, make_superbox, parse_superbox
from watermark.errors import InvalidSoftBindingError, UnreadableMediaError
from watermark.manifest import SOFT_BINDING_ALGORITHMS
from watermark.payload import MarkId

MANIFEST_STORE_MIME = "application/c2pa"
MAX_VALUE_CHARS = 1024
SCORE_EXACT, SCORE_CONTENT_DIFFERS = 100, 50
"""An id is read whole or not at all, so there are two scores: the content is as it was signed, or is not."""
CONSENT_FIELD = "org.placet.consent"
"""Our extension of a match: what the person shown says today. WIRE FORMAT."""
CONSENT_HEADER = "Placet-Consent"

ConsentState = Literal["in_force", "revoked", "not_needed"]


@dataclass(frozen=True)
class Match:
    """One manifest that belongs to what was asked about.

    Attributes:
        manifest_id: its label.
        score: 0..100.
        consent: whether the person shown still agrees to it; "not_needed" for personas and artworks.
    """

    manifest_id: str
    score: int
    consent: ConsentState

    def to_json(self) -> dict[str, Any]:
        """An element of `c2pa.softBindingQueryResult.matches`, with our extension."""
        return {"manifestId": self.manifest_id, "similarityScore": self.score, CONSENT_FIELD: self.consent}


def query_result(matches: Sequence[Match], max_results: int) -> dict[str, Any]:
    """`c2pa.softBindingQueryResult`: the strongest matches first."""
    ordered = sorted(matches, key=lambda match: (-match.score, match.manifest_id))
    return {"matches": [match.to_json() for match in ordered[:max_results]]}


def supported_algorithms() -> dict[str, Any]:
    """`c2pa.softBindingAlgList`: what can be asked for. Fingerprints are compared here, but not searched for."""
    return {"watermarks": [{"alg": name} for name in SOFT_BINDING_ALGORITHMS], "fingerprints": []}


def value_of(mark_id: MarkId) -> str:
    """The `value` of a query: base64 of the value in the manifest's soft binding, sixteen hexadecimal digits."""
    return base64.b64encode(mark_id.hex.encode()).decode()


def mark_id_of(value: str, algorithm: str) -> MarkId:
    """What a query asks for.

    Args:
        value: as `value_of` makes it; standard or URL-safe alphabet, with or without padding.
    Raises: InvalidSoftBindingError: an algorithm that is unknown here, or a value that is none of its.
    """
    check_algorithm(algorithm)
    compact = value.strip().replace("-", "+").replace("_", "/").replace(" ", "+").rstrip("=")
    try:
        digits = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True).decode("ascii").lower()
    except ValueError as exc:
        raise InvalidSoftBindingError("The value is not base64 of a mark's sixteen hexadecimal digits.") from exc
    if len(digits) != 16 or not set(digits) <= set("0123456789abcdef"):
        raise InvalidSoftBindingError("The value is not base64 of a mark's sixteen hexadecimal digits.")
    return MarkId.from_hex(digits)


def check_algorithm(algorithm: str) -> None:
    """Raises: InvalidSoftBindingError: unknown here."""
    if algorithm not in SOFT_BINDING_ALGORITHMS:
        raise InvalidSoftBindingError(
            f"This algorithm is not read here; these are: {', '.join(SOFT_BINDING_ALGORITHMS)}."
        )


def check_manifest_id(manifest_id: str) -> str:
    """The id itself, if it has the form of one (C2PA §8.1). Raises: InvalidSoftBindingError."""
    prefix, _, name = manifest_id.partition("urn:c2pa:")
    if prefix or not name or len(manifest_id) > 200 or not manifest_id.isprintable() or "/" in manifest_id:
        raise InvalidSoftBindingError("A manifest id looks like urn:c2pa:F9168C5E-CEB2-4FAA-B6BF-329BF39FA1E4.")
    return manifest_id


def active_manifest(store: bytes) -> bytes:
    """A manifest store that holds the active manifest of `store` alone: its last one (C2PA §11.1.4.2).

    Raises: UnreadableMediaError: it is not a manifest store.
    """
    boxes = cut(store)
    if len(boxes) != 1:
        raise UnreadableMediaError("This is not one manifest store.")
    outer = parse_superbox(boxes[0])
    if outer.kind != "c2pa" or not outer.superboxes:
        raise UnreadableMediaError("The manifest store is empty.")
    manifests = [box for box in cut(outer.body) if box.kind == b"jumb"]
    return make_superbox(b"c2pa", "c2pa", manifests[-1].data)
