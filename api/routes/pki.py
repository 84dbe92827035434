"""/pki: what outside readers of manifests may ask for without an account: the root, and whether a leaf is revoked."""

from __future__ import annotations

import base64
import binascii

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.deps import ServiceDep
from api.errors import InvalidFieldError
from api.service import Service
from api.uploads import read_body
from watermark.ocsp import CONTENT_TYPE_RESPONSE, MAX_REQUEST_BYTES, OcspResponder

router = APIRouter(prefix="/pki", tags=["certificates"])


@router.get("/root.pem", summary="The certificate under which manifests read “trusted”", response_class=Response)
def root(service: ServiceDep) -> Response:
    pem = (service.instance.pki / "root.pem").read_bytes()
    return Response(pem, media_type="application/x-pem-file")


@router.post("/ocsp", summary="Is a signing certificate revoked? RFC 6960", response_class=Response)
async def ask(request: Request, service: ServiceDep) -> Response:
    return await run_in_threadpool(_answer, service, await read_body(request, MAX_REQUEST_BYTES))


@router.get("/ocsp/{encoded:path}", summary="The same, the request in the address", response_class=Response)
def ask_by_address(encoded: str, service: ServiceDep) -> Response:
    try:
        request = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidFieldError("The address does not hold a base64 OCSP request.") from exc
    return _answer(service, request[:MAX_REQUEST_BYTES])


def _answer(service: Service, request: bytes) -> Response:
    return Response(OcspResponder(service.instance.pki).reply(request), media_type=CONTENT_TYPE_RESPONSE)
