"""/v1/audit: the log, for auditors and for anyone who checks a proof.

Checkpoint and key are public, so that outsiders can hold the operator to them; everything else here needs the scope
`audit:read`. Hash tiles are public too, under /tlog (`api.routes.tlog`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.background import BackgroundTask

from api.audit_schemas import (
    AlarmOut,
    AlarmsOut,
    CheckpointIn,
    ComparisonOut,
    PoliciesOut,
    PolicyDiffOut,
    PolicyTextsOut,
    PolicyUse,
    ReplayOut,
    RevealIn,
    RevealOut,
    SearchOut,
    WitnessesOut,
    WitnessOut,
)
from api.deps import AuditReader, ServiceDep
from api.schemas import EntriesOut, EntryOut, Evidence, Moment, ProofOut, Reason, moment_or_none
from api.service import Service
from policy.bundle import export_bundle
from policy.index import Query as SearchQuery

router = APIRouter(prefix="/v1/audit", tags=["audit"])

Index = Annotated[int, Query(ge=0, lt=1 << 53)]
_PSEUDONYM: Final = r"^([a-z][a-z0-9_.-]{0,30}:[0-9a-f]{32})?$"


@router.get("/checkpoint", summary="Newest signed checkpoint (C2SP signed note)", response_class=PlainTextResponse)
def checkpoint(service: ServiceDep) -> PlainTextResponse:
    return PlainTextResponse(service.log.checkpoint())


@router.get("/key", summary="Public key of the log (C2SP verifier key)", response_class=PlainTextResponse)
def key(service: ServiceDep) -> PlainTextResponse:
    return PlainTextResponse(service.log.verifier_key + "\n")


@router.get("/entries", summary="A stretch of the log")
def entries(
    service: ServiceDep,
    actor: AuditReader,
    start: Index = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    kind: Annotated[str, Query(max_length=64, description="only entries of this kind")] = "",
) -> EntriesOut:
    size = service.log.size
    found = service.log.entries(start, limit)
    following = start + len(found)
    return EntriesOut(
        entries=[entry for entry in found if not kind or entry["kind"] == kind],
        tree_size=size,
        next_start=following if found and following < size else None,
    )


@router.get("/search", summary="Entries by time, pseudonym, kind, outcome, reason, policy")
def search(
    service: ServiceDep,
    actor: AuditReader,
    since: Annotated[Moment | None, Query(description="From this moment on.")] = None,
    until: Annotated[Moment | None, Query(description="Up to, not including, this moment.")] = None,
    subject: Annotated[str, Query(pattern=_PSEUDONYM, description="Pseudonym, `subject:…`.")] = "",
    client: Annotated[str, Query(pattern=_PSEUDONYM, description="Pseudonym, `client:…`.")] = "",
    kind: Annotated[str, Query(max_length=64, description="A kind, or its first words and a dot: `render.`")] = "",
    decision: Annotated[Literal["allowed", "refused"] | None, Query(description="Outcome of a decision.")] = None,
    reason: Annotated[str, Query(max_length=64, description="Reason of a refusal, or code of a failure.")] = "",
    policy: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$", description="Policy hash.")] = "",
    before: Index | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> SearchOut:
    """All conditions must hold. Found through an index beside the log, read from the log."""
    query = SearchQuery(
        since_s=None if since is None else since.timestamp(),
        until_s=None if until is None else until.timestamp(),
        names=tuple(name for name in (subject, client) if name),
        kind=kind,
        allowed=None if decision is None else decision == "allowed",
        reason=reason,
        policy_sha256=policy,
        before=before,
    )
    found, entries = service.audit.search(query, limit)
    return SearchOut(entries=entries, total=found.total, next_before=found.next_before, tree_size=service.log.size)


@router.get("/entries/{index}", summary="One entry with its inclusion proof")
def entry(service: ServiceDep, actor: AuditReader, index: int) -> EntryOut:
    """The proof leads to the newest checkpoint that witnesses have cosigned, where one covers the entry."""
    found = service.log.entry(index)
    return EntryOut(entry=found, evidence=Evidence(**service.witnessing.evidence(index).to_json()))


@router.post("/entries/{index}/replay", summary="Make a logged decision again")
def replay(service: ServiceDep, actor: AuditReader, index: int) -> ReplayOut:
    made = service.audit.replay(index)
    decision = made.decision
    return ReplayOut(
        index=index,
        same=made.same,
        allowed=None if decision is None else decision.allowed,
        reasons=[] if decision is None else [Reason(**reason.to_json()) for reason in decision.reasons],
        policy_sha256=made.policy_sha256,
        facts_sha256=None if decision is None else decision.facts_sha256,
        sentence=made.sentence,
    )


@router.get("/policies", summary="Every policy set that decided here")
def policies(service: ServiceDep, actor: AuditReader) -> PoliciesOut:
    used = service.audit.index.policies()
    kept = sorted(service.audit.archive.known(), key=lambda sha256: used.get(sha256, (1 << 53, 0))[0])
    return PoliciesOut(
        policies=[
            PolicyUse(
                policy_sha256=sha256,
                first_index=used.get(sha256, (None, None))[0],
                last_index=used.get(sha256, (None, None))[1],
                current=sha256 == service.gate.engine.policy_sha256,
            )
            for sha256 in kept
        ]
    )


@router.get("/policies/{policy_sha256}", summary="The texts behind a policy hash")
def policy_texts(service: ServiceDep, actor: AuditReader, policy_sha256: str) -> PolicyTextsOut:
    texts = service.audit.archive.texts(policy_sha256)
    return PolicyTextsOut(
        policy_sha256=texts.policy_sha256, schema_text=texts.schema_text, policy_text=texts.policy_text
    )


@router.get("/policies/{old_sha256}/diff/{new_sha256}", summary="What changed between two policy sets")
def policy_diff(service: ServiceDep, actor: AuditReader, old_sha256: str, new_sha256: str) -> PolicyDiffOut:
    diff = service.audit.archive.diff(old_sha256, new_sha256)
    return PolicyDiffOut(
        old_sha256=old_sha256,
        new_sha256=new_sha256,
        added=list(diff.added),
        removed=list(diff.removed),
        changed=list(diff.changed),
        policies=list(diff.policies),
        schema_lines=list(diff.schema),
    )


@router.post("/checkpoints", summary="Compare a checkpoint that was seen elsewhere with this log")
def compare(service: ServiceDep, actor: AuditReader, seen: CheckpointIn) -> ComparisonOut:
    """A checkpoint with our signature that this log does not continue is a split view: logged, and an alarm."""
    found = service.audit.compare(seen.checkpoint, by=actor.client_id)
    return ComparisonOut(
        size=found.size, consistent=found.consistent, sentence=found.sentence, log_index=found.log_index
    )


@router.post("/reveals", status_code=201, summary="Look behind a pseudonym (logged, and shown to the person)")
def reveal(service: ServiceDep, actor: AuditReader, wanted: RevealIn) -> RevealOut:
    found = service.audit.reveal(wanted.pseudonym, wanted.reason, by=actor.client_id, by_org=actor.org)
    return RevealOut(
        pseudonym=found.pseudonym,
        kind=found.kind,
        account_id=found.account_id,
        name=found.name,
        org=found.org,
        log_index=found.log_index,
    )


@router.get("/alarms", summary="What an auditor must know of now")
def alarms(service: ServiceDep, actor: AuditReader) -> AlarmsOut:
    return AlarmsOut(
        alarms=[
            AlarmOut(
                code=each.code,
                severity=each.severity,
                sentence=each.sentence,
                index=each.index,
                at=moment_or_none(each.at_s),
            )
            for each in service.audit.alarms()
        ]
    )


@router.get("/witnesses", summary="Who cosigns the log, and how far")
def witnesses(service: ServiceDep, actor: AuditReader) -> WitnessesOut:
    witnessing = service.witnessing
    checkpoint = witnessing.checkpoint()
    return WitnessesOut(
        witnesses=[
            WitnessOut(
                name=each.name,
                verifier_key=each.verifier_key,
                size=each.size,
                cosigned_at=moment_or_none(each.cosigned_at),
                problem=each.problem,
                sentence=each.sentence,
            )
            for each in witnessing.states()
        ],
        required=witnessing.required,
        checkpoint=witnessing.note(),
        cosigned_size=checkpoint.size if checkpoint else 0,
        lag_entries=witnessing.lag_entries,
        lag_s=witnessing.lag_s,
    )


@router.get("/proofs/inclusion", summary="Inclusion proof (RFC 9162 §2.1.3)")
def inclusion(service: ServiceDep, actor: AuditReader, index: Index, size: Index | None = None) -> ProofOut:
    tree_size = service.log.size if size is None else size
    proof = service.log.inclusion_proof(index, tree_size)
    return ProofOut(proof=[node.hex() for node in proof], tree_size=tree_size, index=index)


@router.get("/proofs/consistency", summary="Consistency proof (RFC 9162 §2.1.4)")
def consistency(service: ServiceDep, actor: AuditReader, first: Index, second: Index | None = None) -> ProofOut:
    tree_size = service.log.size if second is None else second
    proof = service.log.consistency_proof(first, tree_size)
    return ProofOut(proof=[node.hex() for node in proof], tree_size=tree_size, first_size=first)


@router.get("/tile/{path:path}", summary="A tile (C2SP tlog-tiles)", response_class=Response)
def tile(service: ServiceDep, actor: AuditReader, path: str) -> Response:
    return Response(service.log.tile(f"tile/{path}"), media_type="application/octet-stream")


@router.get(
    "/export", summary="Everything an outsider needs to verify the log, in one file", response_class=FileResponse
)
def export(service: ServiceDep, actor: AuditReader) -> FileResponse:
    return bundle_response(service)


def bundle_response(service: Service) -> FileResponse:
    """The log as it is now, with the newest cosigned checkpoint, as one file to download."""
    with tempfile.NamedTemporaryFile(dir=service.settings.staging_dir, suffix=".bundle", delete=False) as temporary:
        bundle = Path(temporary.name)
    export_bundle(service.log, bundle, cosigned=service.witnessing.note())
    return FileResponse(
        bundle,
        media_type="application/octet-stream",
        filename="audit-bundle.tar",
        background=BackgroundTask(bundle.unlink, missing_ok=True),
    )
