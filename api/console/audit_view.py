"""What the audit pages show, worked out from entries, facts and proofs: rows, fields, drawings. No words in here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from policy.archive import PolicyTexts, rules_of
from policy.evidence import LogEvidence
from policy.index import Bucket
from policy.merkle import node_hash

Shape = Literal["text", "code", "name", "hash", "moment", "yes", "no", "none", "list"]

_NAME = re.compile(r"[a-z][a-z0-9_.-]*:[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{40,64}")
_MOMENT_FIELDS: Final = frozenset({"now", "not_before"})
REVEALABLE: Final = ("subject:", "client:", "org:")

BAD_KINDS: Final = ("token.rejected", "enrolment.refused", "render.refused", "render.failed", "audit.split_view")
WARN_KINDS: Final = ("log.recovered", "audit.reveal", "consent.revoked", "client.suspended", "detection.failed")
GOOD_KINDS: Final = ("delivery", "consent.given", "subject.enrolled")


@dataclass(frozen=True)
class Row:
    """An entry in the table: its tone, what it is about, and why if it says."""

    index: int
    time: str
    kind: str
    tone: str
    allowed: bool | None
    reasons: tuple[str, ...]
    names: tuple[str, ...]


def row_of(entry: Mapping[str, Any], names: Sequence[str]) -> Row:
    """An entry as a line of the table.

    Args:
        names: pseudonyms that it is about.
    """
    body = entry["body"]
    allowed = body.get("allowed") if isinstance(body.get("allowed"), bool) else None
    reasons = body.get("reasons") if isinstance(body.get("reasons"), list) else []
    codes = [str(code) for code in reasons] + ([str(body["code"])] if isinstance(body.get("code"), str) else [])
    about = sorted(
        (name for name in names if name.startswith(REVEALABLE)),
        key=lambda name: REVEALABLE.index(name[: name.index(":") + 1]),
    )
    firsts = {name.partition(":")[0]: name for name in reversed(about)}
    return Row(
        index=entry["index"],
        time=entry["time"],
        kind=entry["kind"],
        tone=tone_of(entry["kind"], allowed),
        allowed=allowed,
        reasons=tuple(codes),
        names=tuple(firsts[space] for space in ("subject", "client") if space in firsts),
    )


def tone_of(kind: str, allowed: bool | None) -> str:
    """Colour of an entry."""
    if allowed is not None:
        return "good" if allowed else "bad"
    for tone, kinds in (("bad", BAD_KINDS), ("warn", WARN_KINDS), ("good", GOOD_KINDS)):
        if kind in kinds:
            return tone
    return "quiet"


@dataclass(frozen=True)
class Field:
    """One fact of an entry: its path in the JSON, its value, and how to show it."""

    path: str
    shape: Shape
    value: Any


def fields_of(value: Mapping[str, Any], path: str = "") -> Iterator[Field]:
    """Every fact of a JSON object, nested ones under a dotted path."""
    for key, item in value.items():
        here = f"{path}.{key}" if path else key
        if isinstance(item, dict):
            yield from fields_of(item, here)
        else:
            yield Field(here, _shape(key, item), item)


def _shape(key: str, item: object) -> Shape:
    if item is None or item in ("", []):
        return "none"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, list):
        return "list"
    if isinstance(item, int) and item > 1_000_000_000 and (key.endswith("_at") or key in _MOMENT_FIELDS):
        return "moment"
    text = str(item)
    if _NAME.fullmatch(text):
        return "name"
    if _HASH.fullmatch(text):
        return "hash"
    return "code" if isinstance(item, str) else "text"


@dataclass(frozen=True)
class FiredRule:
    """A rule that had its say, with its text at the hash of the time (None: not in the archive)."""

    code: str
    sentence: str
    text: str | None


def fired_rules(body: Mapping[str, Any], texts: PolicyTexts | None) -> list[FiredRule]:
    """The rules behind a decision: those that forbade it, or where it was allowed, those that permit at all."""
    rules = rules_of(texts.policy_text) if texts is not None else {}
    if body.get("allowed"):
        action = f'Action::"{body.get("request", {}).get("action", "")}"'
        return [
            FiredRule(code, "", text)
            for code, text in rules.items()
            if re.search(r"^permit\b", text, re.M) and (action in text or "Action::" not in text)
        ]
    return [
        FiredRule(str(code), says_of(rules.get(str(code), "")), rules.get(str(code)))
        for code in body.get("reasons", [])
    ]


def says_of(rule_text: str) -> str:
    """The sentence for people that stands in a rule."""
    match = re.search(r'@says\("((?:[^"\\]|\\.)*)"\)', rule_text)
    return match[1].replace('\\"', '"') if match else ""


# -- drawings


@dataclass(frozen=True)
class Bar:
    """A stretch of time in the timeline: three heights that stand on each other."""

    x: float
    width: float
    allowed_y: float
    allowed_height: float
    refused_y: float
    refused_height: float
    other_y: float
    other_height: float
    start_s: float
    num: int


@dataclass(frozen=True)
class Timeline:
    """Bars over time, in the units of an SVG of `width` by `height`."""

    width: int
    height: int
    bars: tuple[Bar, ...]
    first_s: float
    last_s: float
    most: int


def timeline_of(buckets: Sequence[Bucket], *, width: int = 960, height: int = 110) -> Timeline | None:
    """The drawing of a histogram; None where there is nothing to draw."""
    if not buckets:
        return None
    most = max(each.num_allowed + each.num_refused + each.num_other for each in buckets) or 1
    step = width / max(len(buckets), 12)
    bars = []
    for nth, each in enumerate(buckets):
        heights = [count / most * height for count in (each.num_other, each.num_allowed, each.num_refused)]
        heights = [max(value, 2.0) if value else 0.0 for value in heights]
        tops, y = [], float(height)
        for value in heights:
            y -= value
            tops.append(max(y, 0.0))
        bars.append(
            Bar(
                x=round(nth * step + 1, 2),
                width=round(max(step - 2, 1.5), 2),
                other_y=round(tops[0], 2),
                other_height=round(heights[0], 2),
                allowed_y=round(tops[1], 2),
                allowed_height=round(heights[1], 2),
                refused_y=round(tops[2], 2),
                refused_height=round(heights[2], 2),
                start_s=each.start_s,
                num=each.num_allowed + each.num_refused + each.num_other,
            )
        )
    stretch_s = buckets[1].start_s - buckets[0].start_s if len(buckets) > 1 else 0.0
    return Timeline(width, height, tuple(bars), buckets[0].start_s, buckets[-1].start_s + stretch_s, most)


@dataclass(frozen=True)
class Step:
    """One step of an inclusion proof: the sibling that is hashed in, which entries it covers, and what comes out."""

    is_left: bool
    sibling: str
    first: int
    last: int
    node: str
    y: int


@dataclass(frozen=True)
class ProofDrawing:
    """The way from an entry (below) to the root (above), in the units of an SVG of 420 by `height`."""

    height: int
    leaf_y: int
    root_y: int
    steps: tuple[Step, ...]


ROW: Final = 56
TOP: Final = 112


def draw_proof(evidence: LogEvidence) -> ProofDrawing:
    """Every step of an inclusion proof, from the leaf up (RFC 9162 §2.1.3)."""
    # the halves that the path of the entry leaves to the side, from the root down
    sides: list[tuple[bool, int, int]] = []
    start, end = 0, evidence.tree_size
    while end - start > 1:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if evidence.index < split:
            sides.append((False, split, end - 1))
            end = split
        else:
            sides.append((True, start, split - 1))
            start = split
    leaf_y = TOP + ROW * len(sides)
    steps, node = [], bytes.fromhex(evidence.leaf_hash)
    for nth, (sibling, (is_left, first, last)) in enumerate(
        zip(evidence.inclusion_proof, reversed(sides), strict=True)
    ):
        other = bytes.fromhex(sibling)
        node = node_hash(other, node) if is_left else node_hash(node, other)
        steps.append(Step(is_left, sibling, first, last, node.hex(), leaf_y - ROW * (nth + 1)))
    return ProofDrawing(leaf_y + 64, leaf_y, TOP, tuple(steps))


def diff_lines(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Lines of a unified diff with a word for each: add, del, hunk, same."""
    kinds = {"+": "add", "-": "del", "@": "hunk"}
    return [(kinds.get(line[:1], "same"), line) for line in lines if not line.startswith(("+++", "---"))]
