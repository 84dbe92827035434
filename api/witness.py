"""The HTTP side of a witness: c2sp.org/tlog-witness, and what others need to compare notes with it.

    POST /add-checkpoint                      old size, consistency proof, checkpoint -> signature line
    GET  /                                    name, verifier key, and the size that was cosigned of each log
    GET  /logs/<sha256 of origin>/checkpoint  the newest checkpoint that was cosigned, with the cosignature

Nothing is authenticated but the signature on the checkpoint, as the protocol has it. A refusal is one line of text,
`code: sentence`, under the status that the protocol names.
"""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from policy.canonical import sha256_hex
from policy.cosignature import MAX_REQUEST_NUM_BYTES
from policy.errors import WitnessConflictError, WitnessError
from policy.witness import Witness

SIZE_MEDIA_TYPE: Final = "text/x.tlog.size"
STATUS_BY_CODE: Final = {
    "witness.malformed": 400,
    "witness.signature": 403,
    "witness.origin": 404,
    "witness.conflict": 409,
    "witness.split_view": 409,
    "witness.proof": 422,
    "witness.state": 503,
}


def create_witness_app(witness: Witness) -> Starlette:
    """The application of one witness."""

    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_REQUEST_NUM_BYTES:
                return PlainTextResponse("witness.malformed: The request is far too long to be one.\n", 413)
        try:
            return PlainTextResponse(await run_in_threadpool(witness.add_checkpoint, body))
        except WitnessConflictError as error:
            return Response(f"{error.size}\n", 409, media_type=SIZE_MEDIA_TYPE)
        except WitnessError as error:
            return _refusal(error)

    def about(_request: Request) -> Response:
        try:
            logs = [
                {"origin": each.origin, "size": each.latest.size if each.latest else 0} for each in witness.watched()
            ]
        except WitnessError as error:
            return _refusal(error)
        return JSONResponse(
            {
                "name": witness.key.name,
                "verifier_key": witness.key.text,
                "logs": logs,
                "num_refused": witness.num_refused(),
            }
        )

    def latest(request: Request) -> Response:
        wanted = request.path_params["origin_sha256"]
        try:
            for each in witness.watched():
                if sha256_hex(each.origin.encode()) == wanted and each.latest_note:
                    return PlainTextResponse(each.latest_note, headers={"cache-control": "no-cache"})
        except WitnessError as error:
            return _refusal(error)
        return PlainTextResponse("witness.origin: Nothing of that log has been cosigned here.\n", 404)

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/", about),
            Route("/logs/{origin_sha256}/checkpoint", latest),
        ]
    )


def _refusal(error: WitnessError) -> Response:
    return PlainTextResponse(f"{error.code}: {error.sentence}\n", STATUS_BY_CODE[error.code])
