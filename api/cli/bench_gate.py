"""`placet bench policy` and `placet bench gate`: how fast it is decided, and how long from token to permit.

Policy: the whole `PolicyEngine.decide`, with canonical JSON and hash of request and facts, over a mix of clients,
subjects and inputs in which no two decisions are alike. Its twin figure is the evaluation alone.

Gate: a real service in a temporary home. What is timed is what a request costs between its headers and its permit:
token, proof of possession, the caller, whose face it is, facts, decision, log entry on disk, records, permit. What is
not: HTTP, decoding of uploads, and the client's own work; only the processor time that is stated includes the last. The
disk is measured in the same run.
"""

from __future__ import annotations

import os
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.bench_log import spread_ms, sync_times_s
from api.cli.lab import bench, machine
from api.cli.output import Json, emit, progress_bar, reporting
from policy.canonical import sha256_hex
from policy.consent import PURPOSE_RESEARCH
from policy.decision import ConsentFacts, Facts, PolicyEngine, RenderRequest
from policy.facts import FACE_MATCH, VETTING_APPROVED
from policy.identity import SCOPE_RENDER_CREATE

NUM_CLIENTS, NUM_SUBJECTS = 16, 64
_BATCH = 1000
_NOW = 1_790_000_000


@bench.command("policy")
def bench_policy(
    rounds: Annotated[int, typer.Option(min=3, help="Rounds of 1,000 decisions each; the median counts.")] = 15,
    seed: Annotated[int, typer.Option(help="Of the requests that are drawn.")] = 20261122,
    as_json: Json = False,
) -> None:
    """Decisions per second on one core, warm: allowed, and refused with all reasons."""
    with reporting(as_json):
        engine, chance = PolicyEngine.load(), random.Random(seed)  # noqa: S311  requests, not keys
        allowed = [_drawn(chance) for _ in range(_BATCH)]
        refused = [(request, _spoilt(facts, chance)) for request, facts in allowed]
        result: dict[str, Any] = {
            "bench": "policy",
            "clients": NUM_CLIENTS,
            "subjects": NUM_SUBJECTS,
            "rules": len(engine.codes),
            "allowed": _rates(engine, allowed, rounds, is_allowed=True),
            "refused": _rates(engine, refused, rounds, is_allowed=False),
            "evaluation_only": _rate(lambda request, facts: engine.evaluate(request, facts), allowed, rounds),
            **machine(),
        }
        lines = [
            f"{name:<16}{result[name]['per_cpu_s']:>8,} per second of processor time"
            f" (best round {result[name]['best_per_cpu_s']:,}; {result[name]['per_s']:,} of wall-clock)"
            for name in ("allowed", "refused", "evaluation_only")
        ]
        emit(as_json, result, "\n".join(lines))


@bench.command("gate")
def bench_gate(
    requests: Annotated[int, typer.Option(min=20, help="Requests that are timed, after a tenth to warm up.")] = 500,
    directory: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Disk to measure; by default the temporary one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """From access token and DPoP proof to the signed permit, with the decision durably in the log."""
    with reporting(as_json), _gate(directory) as (place, ask):
        before = sync_times_s(place)
        stages: dict[str, list[float]] = {"whole": [], "token": [], "ruling": [], "permit": []}
        cpu_s: list[float] = []
        num_warm_up = max(10, requests // 10)
        with progress_bar("asking") as tell:
            for nth in range(num_warm_up + requests):
                used_s = time.process_time()
                token_s, ruling_s, permit_s = ask()
                if nth >= num_warm_up:
                    cpu_s.append(time.process_time() - used_s)
                    took_s = (permit_s, token_s, ruling_s - token_s, permit_s - ruling_s)
                    for times, value in zip(stages.values(), took_s, strict=True):
                        times.append(value)
                tell((nth + 1) / (num_warm_up + requests))
        after = sync_times_s(place)
        result = {
            "bench": "gate",
            "requests": requests,
            **{f"{name}_ms": spread_ms(times) for name, times in stages.items()},
            "cpu_ms": spread_ms(cpu_s),
            "fsync_ms": spread_ms(before + after),
            **machine(),
        }
        emit(
            as_json,
            result,
            f"gate       {result['whole_ms']['median']} ms median, {result['whole_ms']['p99']} ms p99\n"
            f"  token    {result['token_ms']['median']} / {result['token_ms']['p99']} ms, proof remembered\n"
            f"  ruling   {result['ruling_ms']['median']} / {result['ruling_ms']['p99']} ms, log and records on disk\n"
            f"  permit   {result['permit_ms']['median']} / {result['permit_ms']['p99']} ms\n"
            f"processor  {result['cpu_ms']['median']} ms\n"
            f"disk       {result['fsync_ms']['median']} ms for one durable write (p99 {result['fsync_ms']['p99']})",
        )


# -- policy


def _drawn(chance: random.Random) -> tuple[RenderRequest, Facts]:
    """A request that is allowed: its speech, duration, time, use and budget are its own."""
    nth_client, nth_subject = chance.randrange(NUM_CLIENTS), chance.randrange(NUM_SUBJECTS)
    portrait = sha256_hex(f"portrait {nth_subject}".encode())
    request = RenderRequest(
        action="render",
        client_id=f"client:{nth_client:032x}",
        org=f"org:{nth_client:032x}",
        scopes=(SCOPE_RENDER_CREATE,),
        subject_id=f"subject:{nth_subject:032x}",
        portrait_sha256=portrait,
        speech_sha256=f"{chance.getrandbits(256):064x}",
        controls=("gaze", "intensity", "seed"),
        controls_sha256=f"{chance.getrandbits(256):064x}",
        purpose=PURPOSE_RESEARCH,
        duration_ms=chance.randrange(500, 30_000),
    )
    consent = ConsentFacts(
        sha256=sha256_hex(f"consent {nth_client} {nth_subject}".encode()),
        grantee_org=request.org,
        grantee_client=request.client_id,
        purposes=(PURPOSE_RESEARCH,),
        portraits=(portrait,),
        controls=("gaze", "intensity", "seed"),
        not_before=_NOW - 86_400,
        expires_at=_NOW + 86_400,
        max_uses=1000,
        uses=chance.randrange(1000),
        epoch=0,
        revoked=False,
    )
    facts = Facts(
        subject_class="adult",
        face_match=FACE_MATCH,
        consent=consent,
        vetting=VETTING_APPROVED,
        vetting_expires_at=_NOW + 864_000,
        budget_ms=3_600_000,
        budget_used_ms=chance.randrange(3_000_000),
        streams=chance.randrange(4),
        max_streams=4,
        max_duration_ms=600_000,
        now=_NOW + chance.randrange(3600),
    )
    return request, facts


def _spoilt(facts: Facts, chance: random.Random) -> Facts:
    """The same, refused for a reason that has to be found."""
    values = dict(vars(facts))
    name, value = chance.choice(
        [("streams", 4), ("budget_used_ms", 3_600_000), ("subject_epoch", 1), ("now", 2 * _NOW)]
    )
    return Facts(**values | {name: value})


def _rates(
    engine: PolicyEngine, cases: list[tuple[RenderRequest, Facts]], rounds: int, *, is_allowed: bool
) -> dict[str, int]:
    assert all(engine.decide(*case).allowed is is_allowed for case in cases)
    return _rate(engine.decide, cases, rounds)


def _rate(
    decide: Callable[[RenderRequest, Facts], object], cases: list[tuple[RenderRequest, Facts]], rounds: int
) -> dict[str, int]:
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(rounds + 1):  # the first one warms up
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for request, facts in cases:
            decide(request, facts)
        wall.append(time.perf_counter() - wall_s)
        cpu.append(time.process_time() - cpu_s)
    middle = (rounds + 1) // 2
    return {
        "per_cpu_s": round(len(cases) / sorted(cpu[1:])[middle]),
        "best_per_cpu_s": round(len(cases) / min(cpu[1:])),
        "per_s": round(len(cases) / sorted(wall[1:])[middle]),
    }


# -- gate


@contextmanager
def _gate(directory: Path | None) -> Iterator[tuple[Path, Callable[[], tuple[float, float, float]]]]:
    """A service with one vetted client and one enrolled subject who agreed; and what asks it once.

    Asking answers the seconds until the caller was known, the decision was on disk, and the permit was signed.
    """
    from api.client import Credentials, PlacetClient
    from api.clients import SCOPES_BY_KIND, Vetting
    from api.engine.renders import Submission
    from api.oauth.dpop import verify_proof
    from api.oauth.resource import Presentation
    from api.oauth.scopes import AUDIENCE_PATH_BY_SCOPE
    from api.service import Service
    from api.settings import Settings
    from api.setup import create_instance
    from api.storage.models import Render
    from policy.consent import new_subject_key
    from policy.identity import Actor

    with tempfile.TemporaryDirectory(dir=directory, prefix="placet-bench-") as scratch:
        settings = Settings(home=Path(scratch) / "home", prewarm=False)
        create_instance(settings, "bench")
        service = Service(settings)
        try:
            key = new_subject_key()
            vetting = Vetting(
                kind="researcher",
                name="bench",
                org="bench",
                project="",
                ethics_reference="",
                scopes=SCOPES_BY_KIND["researcher"],
                term_expires_at=None,
                budget_s_per_day=1e9,
            )
            client = service.clients.register(vetting, Credentials("", key).public_jwks)
            portrait_sha256 = _enrol(service, client.client_id)
            holder = PlacetClient(settings.base_url, Credentials(client.client_id, key))
            url = f"{settings.base_url}/v1/renders"
            speech = secrets.token_bytes(160_000)
            scope = SCOPE_RENDER_CREATE
            first = (holder.proof("POST", url),)
            bound = verify_proof(first, method="POST", url=url, now=service.now(), lifetime_s=60, leeway_s=5)

            def token() -> str:
                answer = service.oauth.issue(
                    client_id=client.client_id, account_id=client.client_id, scopes=frozenset({scope}), proof=bound
                )
                return str(answer["access_token"])

            def ask() -> tuple[float, float, float]:
                access_token = token()
                headers = {"dpop": (holder.proof("POST", url, access_token),)}
                presentation = Presentation((f"DPoP {access_token}",), "POST", url, headers)
                started_s = time.perf_counter()
                # (1) who asks
                verified = service.tokens.verify(presentation, path=AUDIENCE_PATH_BY_SCOPE[scope], scope=scope)
                row = service.clients.find(verified.account_id)
                actor = Actor(row.client_id, row.org, verified.scopes, frozenset(row.roles))
                token_s = time.perf_counter() - started_s
                # (2) whether they may, on disk
                job = service.renders.decide(
                    actor,
                    Submission(
                        subject_id="bench-subject",
                        portrait=b"as uploaded",
                        portrait_sha256=portrait_sha256,
                        speech=speech,
                        speech_s=5.0,
                        purpose=PURPOSE_RESEARCH,
                        controls={"seed": 1},
                    ),
                )
                ruling_s = time.perf_counter() - started_s
                # (3) the permit
                service.gate.permit(
                    job.ruling,
                    worker=settings.worker_name,
                    portrait_sha256=portrait_sha256,
                    speech_sha256=job.ruling.request.speech_sha256,
                    controls=job.controls,
                    mark_id=job.mark_id,
                )
                permit_s = time.perf_counter() - started_s
                with service.database.write() as session:  # it is never rendered, and must not fill the client's places
                    session.get_one(Render, job.render_id).status = "failed"
                return token_s, ruling_s, permit_s

            yield Path(scratch), ask
        finally:
            service.close()


def _enrol(service: Any, client_id: str) -> str:
    """An adult with a portrait, a face template and a consent for the client, straight into the database."""
    import numpy as np

    from api.storage.models import Consent, Portrait, Subject, Template
    from api.storage.sealing import new_wrapped_key, seal
    from generator.likeness import FaceTemplate

    keys, now, subject_id = service.keys.service, service.now(), "bench-subject"
    wrapped_key, portrait_sha256 = new_wrapped_key(subject_id, keys), sha256_hex(os.urandom(8))
    face = FaceTemplate(np.random.default_rng(7).normal(size=128).astype(np.float32)).to_bytes()
    statement = {
        "subject_id": subject_id,
        "grantee_org": "bench",
        "grantee_client": client_id,
        "purposes": [PURPOSE_RESEARCH],
        "portraits": [portrait_sha256],
        "controls": ["seed"],
        "not_before": int(now) - 60,
        "expires_at": int(now) + 86_400,
        "max_uses": 1_000_000,
        "epoch": 0,
    }
    with service.database.write() as session:
        session.add(
            Subject(
                subject_id=subject_id,
                subject_class="adult",
                public_jwk={},
                wrapped_key=wrapped_key,
                pseudonym_salt=os.urandom(32),
                created_at=now,
                log_index=0,
            )
        )
        session.flush()
        session.add(Portrait(sha256=portrait_sha256, subject_id=subject_id, sealed_blob="", summary={}, created_at=now))
        session.flush()
        session.add(
            Template(
                portrait_sha256=portrait_sha256,
                subject_id=subject_id,
                sealed=seal(face, subject_id=subject_id, wrapped_key=wrapped_key, keys=keys),
            )
        )
        session.add(
            Consent(
                consent_id="bench-consent",
                subject_id=subject_id,
                sha256=sha256_hex(b"bench-consent"),
                signed="",
                statement=statement,
                grantee_org="bench",
                grantee_client=client_id,
                expires_at=statement["expires_at"],
                epoch=0,
                created_at=now,
                log_index=0,
            )
        )
    return portrait_sha256
