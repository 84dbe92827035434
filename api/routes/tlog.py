"""/tlog: the log as c2sp.org/tlog-tiles lays it out, for witnesses, monitors and anyone's own tools.

Public: the checkpoint and the hash tiles, so that outsiders can hold the operator to them without asking for access.
Not public: the entries, whose pseudonyms still speak about people's behaviour; they need the scope `audit:read`.
What a stranger can do with hashes is to confirm an entry that they can guess in full, pseudonym and millisecond
included.

A tile of a given width never changes, so it may be cached for ever; the checkpoint must be asked for again.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from api.deps import AuditReader, ServiceDep
from policy.errors import EntryNotFoundError
from policy.tiles import ENTRIES, TileName

router = APIRouter(prefix="/tlog", tags=["audit"])

FOR_EVER: Final = "public, max-age=31536000, immutable"
FOR_EVER_PRIVATE: Final = "private, max-age=31536000, immutable"
_TILE_MEDIA_TYPE: Final = "application/octet-stream"


@router.get(
    "/checkpoint", summary="Checkpoint of the log (C2SP tlog-checkpoint, cosigned)", response_class=PlainTextResponse
)
def checkpoint(service: ServiceDep) -> PlainTextResponse:
    """The newest checkpoint that witnesses have cosigned; where none are configured, the newest."""
    note = service.witnessing.note() or service.log.checkpoint()
    return PlainTextResponse(note, headers={"cache-control": "no-cache"})


@router.get("/tile/entries/{path:path}", summary="A bundle of entries (C2SP tlog-tiles)", response_class=Response)
def entries(service: ServiceDep, actor: AuditReader, path: str) -> Response:
    data = service.log.tile(f"tile/entries/{path}")
    return Response(data, media_type=_TILE_MEDIA_TYPE, headers={"cache-control": FOR_EVER_PRIVATE})


@router.get("/tile/{path:path}", summary="A tile of hashes (C2SP tlog-tiles)", response_class=Response)
def tile(service: ServiceDep, path: str) -> Response:
    if TileName.parse(f"tile/{path}").level == ENTRIES:
        raise EntryNotFoundError("Entries are at /tlog/tile/entries/.")
    data = service.log.tile(f"tile/{path}")
    return Response(data, media_type=_TILE_MEDIA_TYPE, headers={"cache-control": FOR_EVER})
