"""HTTP types of the audit endpoints; the rest is in `api.schemas`, whose rules hold here too."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.schemas import Reason, RequestModel, ResponseModel


class SearchOut(ResponseModel):
    """Entries that fit, newest first."""

    entries: list[dict[str, Any]]
    total: int = Field(description="How many fit in all.")
    next_before: int | None = Field(description="Put it into `before` for the next page; null: there is none.")
    tree_size: int


class ReplayOut(ResponseModel):
    """A logged decision, made again by the policies of its time."""

    index: int
    same: bool = Field(description="It comes out as it was logged, for the same reasons.")
    allowed: bool | None
    reasons: list[Reason]
    policy_sha256: str
    facts_sha256: str | None
    sentence: str


class PolicyUse(ResponseModel):
    """A policy set that is kept, and which decisions it made."""

    policy_sha256: str
    first_index: int | None
    last_index: int | None
    current: bool


class PoliciesOut(ResponseModel):
    """Every policy set that is kept, in the order of its first decision."""

    policies: list[PolicyUse]


class PolicyTextsOut(ResponseModel):
    """The texts behind a policy hash."""

    policy_sha256: str
    schema_text: str
    policy_text: str


class PolicyDiffOut(ResponseModel):
    """What changed between two policy sets: rules by id, and unified diffs line by line."""

    old_sha256: str
    new_sha256: str
    added: list[str]
    removed: list[str]
    changed: list[str]
    policies: list[str]
    schema_lines: list[str]


class CheckpointIn(RequestModel):
    """A checkpoint of this log that was seen somewhere else."""

    checkpoint: str = Field(min_length=1, max_length=65536, description="A C2SP signed note.")


class ComparisonOut(ResponseModel):
    """Whether this log continues it."""

    size: int
    consistent: bool
    sentence: str
    log_index: int | None = Field(description="Entry that records another history.")


class RevealIn(RequestModel):
    """A look behind a pseudonym."""

    pseudonym: str = Field(pattern=r"^(subject|client|org):[0-9a-f]{32}$", examples=["subject:" + "0" * 32])
    reason: str = Field(min_length=1, max_length=500, description="Kept, and shown to the person.")


class RevealOut(ResponseModel):
    """Who is behind a pseudonym."""

    pseudonym: str
    kind: str
    account_id: str
    name: str
    org: str
    log_index: int = Field(description="Entry that records the look.")


class AlarmOut(ResponseModel):
    """One thing to look into."""

    code: str = Field(examples=["clock.back", "witness.lag"])
    severity: Literal["alarm", "warning"]
    sentence: str
    index: int | None
    at: datetime | None


class AlarmsOut(ResponseModel):
    """Everything that an auditor must know of now, the worst first."""

    alarms: list[AlarmOut]


class WitnessOut(ResponseModel):
    """A witness of the log."""

    name: str
    verifier_key: str
    size: int = Field(description="Entries under the checkpoint that it cosigned last for us.")
    cosigned_at: datetime | None
    problem: str
    sentence: str


class WitnessesOut(ResponseModel):
    """The witnesses, and the newest checkpoint that they have cosigned."""

    witnesses: list[WitnessOut]
    required: int
    checkpoint: str | None
    cosigned_size: int
    lag_entries: int
    lag_s: float
