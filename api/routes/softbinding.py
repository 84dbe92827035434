"""/softbinding: the C2PA Soft Binding Resolution API 1.0, from a mark or a file back to its manifest.

Paths, parameters and answers are those of the C2PA's OpenAPI document. A match carries one field more, and a manifest
one header more: whether the consent behind it still holds. Nothing here says whose face it is.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from api.deps import ManifestReader, ServiceDep
from api.engine.examiner import examine_and_log
from api.errors import ContentTypeError, QueryTooLongError
from api.service import Service
from api.uploads import read_body
from watermark.resolver import (
    CONSENT_HEADER,
    MANIFEST_STORE_MIME,
    MAX_VALUE_CHARS,
    SCORE_CONTENT_DIFFERS,
    SCORE_EXACT,
    Match,
    active_manifest,
    check_algorithm,
    check_manifest_id,
    mark_id_of,
    query_result,
    supported_algorithms,
)

router = APIRouter(prefix="/softbinding", tags=["soft binding resolution"])

MaxResults = Annotated[
    int, Query(alias="maxResults", ge=1, description="The maximum number of manifest identifiers to return.")
]
_ASSETS = ("image", "audio", "video", "application", "model", "text")
_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "Asset to match to manifests.",
        "required": True,
        "content": {f"{kind}/*": {"schema": {"type": "string", "format": "binary"}} for kind in _ASSETS},
    }
}


class SoftBindingQuery(BaseModel):
    """`c2pa.softBindingQuery`."""

    alg: str = Field(max_length=200, description="name and version of the soft binding algorithm")
    value: str = Field(description="base64 of the value, in a format of the algorithm's own")


class SoftBindingMatch(BaseModel):
    """An element of the answer."""

    model_config = ConfigDict(populate_by_name=True)

    manifestId: str = Field(description="identifier of a matched manifest")
    similarityScore: int = Field(ge=0, le=100, description="100: as signed; 50: marked, but the content differs")
    consent: str = Field(alias="org.placet.consent", description="in_force, revoked, or not_needed")


class SoftBindingQueryResult(BaseModel):
    """`c2pa.softBindingQueryResult`."""

    matches: list[SoftBindingMatch]


@router.get("/matches/byBinding", summary="Manifests that a soft binding leads to")
def by_binding(
    service: ServiceDep,
    _actor: ManifestReader,
    value: Annotated[str, Query(description="base64 of the value of the soft binding")],
    alg: Annotated[str, Query(description="name and version of the soft binding algorithm")],
    max_results: MaxResults = 10,
) -> SoftBindingQueryResult:
    if len(value) > MAX_VALUE_CHARS:
        raise QueryTooLongError("The value is too long for an address: use POST.")
    return _by_binding(service, value, alg, max_results)


@router.post("/matches/byBinding", summary="The same, for values too large for an address")
def by_large_binding(
    service: ServiceDep, _actor: ManifestReader, query: SoftBindingQuery, max_results: MaxResults = 10
) -> SoftBindingQueryResult:
    return _by_binding(service, query.value, query.alg, max_results)


def _by_binding(service: Service, value: str, algorithm: str, max_results: int) -> SoftBindingQueryResult:
    found = service.manifests.by_mark(mark_id_of(value, algorithm).hex)
    return _answer([] if found is None else [found.match()], max_results)


@router.post("/matches/byContent", summary="Manifests that a file leads to; nothing of it is kept", openapi_extra=_BODY)
async def by_content(
    request: Request,
    service: ServiceDep,
    actor: ManifestReader,
    max_results: MaxResults = 10,
    alg: Annotated[str | None, Query(description="look with this algorithm only")] = None,
    hint_alg: Annotated[str | None, Query(alias="hintAlg", description="algorithm of the hint")] = None,
    hint_value: Annotated[str | None, Query(alias="hintValue", description="another soft binding of the file")] = None,
) -> SoftBindingQueryResult:
    for algorithm in (alg, hint_alg):
        if algorithm is not None:
            check_algorithm(algorithm)
    hinted = mark_id_of(hint_value, hint_alg) if hint_value is not None and hint_alg is not None else None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.partition("/")[0] not in _ASSETS:
        raise ContentTypeError("image/*, video/*, audio/* or application/*")
    data = await read_body(request, service.settings.max_detection_bytes)
    mime = kind if kind.startswith(("image/", "video/", "audio/")) else "application/octet-stream"
    report = await run_in_threadpool(examine_and_log, service, actor.client_id, data, mime)
    found = await run_in_threadpool(_matches, service, report)
    if hinted is not None and not found:
        # A hint is the caller's word, not a finding: it is looked up, and believed as little as any other query.
        resolution = await run_in_threadpool(service.manifests.by_mark, hinted.hex)
        found = [] if resolution is None else [resolution.match()]
    return _answer(found, max_results)


def _matches(service: Service, report: dict[str, Any]) -> list[Match]:
    """One match for each id that the marks of picture and sound lead to."""
    found: dict[str, Match] = {}
    for layer in report["layers"].values():
        mark_id = layer.get("mark_id") if isinstance(layer, dict) and layer.get("state") == "detected" else None
        resolution = service.manifests.by_mark(mark_id) if isinstance(mark_id, str) else None
        if resolution is not None:
            score = SCORE_CONTENT_DIFFERS if layer.get("content") == "differs" else SCORE_EXACT
            known = found.get(resolution.manifest_id)
            if known is None or known.score < score:
                found[resolution.manifest_id] = resolution.match(score)
    return list(found.values())


@router.get("/manifests/{manifest_id}", summary="A manifest store, or its active manifest", response_class=Response)
def manifest(
    manifest_id: str,
    service: ServiceDep,
    _actor: ManifestReader,
    active_only: Annotated[bool, Query(alias="returnActiveManifest", description="the active manifest alone")] = False,
) -> Response:
    resolution = service.manifests.by_manifest_id(check_manifest_id(manifest_id))
    store = service.manifests.store(resolution)
    return Response(
        active_manifest(store) if active_only else store,
        media_type=MANIFEST_STORE_MIME,
        headers={CONSENT_HEADER: resolution.consent},
    )


@router.get("/services/supportedAlgorithms", summary="Soft binding algorithms that can be asked for")
def algorithms() -> dict[str, Any]:
    return supported_algorithms()


def _answer(matches: list[Match], max_results: int) -> SoftBindingQueryResult:
    return SoftBindingQueryResult.model_validate(query_result(matches, max_results))
