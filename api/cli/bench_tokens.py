"""`placet bench tokens`: access tokens checked per second, alone, with the records behind them, and with proofs (DPoP).

A real database in a temporary folder, real keys, no HTTP. Everything is checked as for a request: type, algorithm,
issuer, signature, audience, times, denylist, client on record; with DPoP also the proof, which is used up on disk.
Wall-clock and processor time are both given: on a machine that does other things, compare the latter.
"""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from joserfc import jwt
from joserfc.jwk import ECKey

from api.cli.lab import machine
from api.cli.output import Json, emit, reporting
from api.clients import ClientDirectory, Vetting
from api.oauth.dpop import ProofBook
from api.oauth.jwts import sha256_base64url, signed_jwt
from api.oauth.keys import TokenKeys
from api.oauth.resource import AccessTokenValidator, BearerScheme, DPoPScheme, OwnIssuer, Presentation
from api.storage.database import Database
from api.storage.spent import SpentIds
from policy.identity import SCOPE_AUDIT_READ, SCOPE_RENDER_READ
from policy.instance import Instance

ISSUER = "https://bench.example"
_RUNS = 5


def bench_tokens(
    num: Annotated[int, typer.Option("--num", min=10, help="Tokens per run.")] = 300, as_json: Json = False
) -> None:
    """Access tokens checked per second."""
    with reporting(as_json), tempfile.TemporaryDirectory() as scratch:
        result = {"bench": "tokens", "num": num, "runs": _RUNS, **_measure(Path(scratch), num), **machine()}
        text = (
            f"{result['signature_per_s']:,} tokens/s by themselves; {result['bearer_per_s']:,} with their records; "
            f"{result['dpop_per_s']:,} with a proof, used up on disk"
        )
        emit(as_json, result, text)


def _measure(home: Path, num: int) -> dict[str, Any]:
    instance = Instance.create(home / "instance", "bench")
    database = Database.create(home / "bench.sqlite3")
    clients, spent = ClientDirectory(database, instance.gate, time.time), SpentIds(database, time.time)
    keys, proof_key = TokenKeys(instance.keys.service), ECKey.generate_key("P-256")
    scopes = {SCOPE_AUDIT_READ: "auditor", SCOPE_RENDER_READ: "researcher"}
    names = {
        scope: clients.register(_vetting(kind, scope), {"keys": [proof_key.as_dict(private=False)]}).client_id
        for scope, kind in scopes.items()
    }

    def token(scope: str, path: str, **more: Any) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": ISSUER + path, "client_id": names[scope], "sub": names[scope], "scope": scope}
        times = {"iat": now, "exp": now + 300, "jti": secrets.token_urlsafe(12)}
        return signed_jwt({"typ": "at+jwt"}, {**claims, **times, **more}, keys.signer())

    validator = AccessTokenValidator(
        issuers=(OwnIssuer(ISSUER, keys),),
        spent=spent,
        is_live=clients.is_live,
        now=time.time,
        leeway_s=5,
        schemes=(BearerScheme(), DPoPScheme(ProofBook(spent, time.time, lifetime_s=300, leeway_s=5))),
    )
    bearer = token(SCOPE_AUDIT_READ, "/v1/audit")
    presentation = Presentation((f"Bearer {bearer}",), "GET", f"{ISSUER}/v1/audit/entries")
    bound = token(SCOPE_RENDER_READ, "/v1/renders", cnf={"jkt": proof_key.thumbprint()})
    url = f"{ISSUER}/v1/renders/ren_0"
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": dict(proof_key.as_dict(private=False))}
    claims = {"htm": "GET", "htu": url, "iat": int(time.time()), "ath": sha256_base64url(bound)}
    proofs = iter(
        [jwt.encode(header, {**claims, "jti": str(number)}, proof_key) for number in range((_RUNS + 1) * num)]
    )

    def with_proof() -> None:
        headers = {"dpop": (next(proofs),)}
        given = Presentation((f"DPoP {bound}",), "GET", url, headers)
        validator.verify(given, path="/v1/renders", scope=SCOPE_RENDER_READ)

    figures = {
        "signature": _rate(lambda: validator._claims(bearer), num),
        "bearer": _rate(lambda: validator.verify(presentation, path="/v1/audit", scope=SCOPE_AUDIT_READ), num),
        "dpop": _rate(with_proof, num),
    }
    database.close()
    return {
        f"{name}_per_{unit}": round(rate)
        for name, rates in figures.items()
        for unit, rate in zip(("s", "cpu_s"), rates, strict=True)
    }


def _rate(job: Callable[[], object], num: int) -> tuple[float, float]:
    """Jobs per second of wall-clock and of processor time: the median of several runs, after one to warm up."""
    wall, processor = [], []
    for run in range(_RUNS + 1):
        started_at_s, used_s = time.perf_counter(), time.process_time()
        for _ in range(num):
            job()
        if run:
            wall.append(num / (time.perf_counter() - started_at_s))
            processor.append(num / max(1e-9, time.process_time() - used_s))
    return statistics.median(wall), statistics.median(processor)


def _vetting(kind: str, scope: str) -> Vetting:
    return Vetting(
        kind=kind,
        name="bench",
        org="bench",
        project="",
        ethics_reference="",
        scopes=frozenset({scope}),
        term_expires_at=None,
        budget_s_per_day=0,
    )
