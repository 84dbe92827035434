"""/v1/audit: the log, for auditors and for anyone who checks a proof.

Checkpoint and key are public, so that outsiders can hold the operator to them; entries, tiles and proofs need the
scope `audit:read`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.background import BackgroundTask

from api.deps import AuditReader, ServiceDep
from api.schemas import EntriesOut, EntryOut, Evidence, ProofOut
from policy.fsck import export_bundle

router = APIRouter(prefix="/v1/audit", tags=["audit"])

Index = Annotated[int, Query(ge=0, lt=1 << 53)]


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


@router.get("/entries/{index}", summary="One entry with its inclusion proof")
def entry(service: ServiceDep, actor: AuditReader, index: int) -> EntryOut:
    found = service.log.entry(index)
    return EntryOut(entry=found, evidence=Evidence(**service.log.evidence(index).to_json()))


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
    with tempfile.NamedTemporaryFile(dir=service.settings.staging_dir, suffix=".bundle", delete=False) as temporary:
        bundle = Path(temporary.name)
    export_bundle(service.log, bundle)
    return FileResponse(
        bundle,
        media_type="application/octet-stream",
        filename="audit-bundle.tar",
        background=BackgroundTask(bundle.unlink, missing_ok=True),
    )
