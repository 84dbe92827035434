"""`placet bench consent`: what consent costs, and how much still leaves after it was taken back.

Signatures, decisions of a subject with very many consents, the comparison with protected faces, and a delivery to a
slow reader that is stopped by a revocation, with the bytes counted at both ends.
"""

from __future__ import annotations

import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from api.cli.bench_gate import bench
from api.cli.lab import machine
from api.cli.output import Json, emit, reporting

__all__ = ["bench"]

_NOW = 1_790_000_000
_GRANTEE = "res_bench"


@bench.command("consent")
def bench_consent(
    consents: Annotated[int, typer.Option(min=1, help="Consents on record of one subject.")] = 10_000,
    faces: Annotated[int, typer.Option(min=1, help="Protected faces to compare with.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions of each measurement.")] = 200,
    as_json: Json = False,
) -> None:
    """Signatures, decisions among many consents, face comparison, and delivery after a revocation."""
    with reporting(as_json), tempfile.TemporaryDirectory(prefix="placet-bench-") as scratch:
        result: dict[str, Any] = {"bench": "consent", "machine": machine(), "verify": _signatures(rounds)}
        result["gather"] = {"consents": consents, **_gathering(Path(scratch), consents, rounds)}
        result["faces"] = {"protected": faces, **_comparing(Path(scratch), faces, rounds)}
        result["delivery"] = _stopping(Path(scratch))
        verify, gather, look, stop = (result[name] for name in ("verify", "gather", "faces", "delivery"))
        emit(
            as_json,
            result,
            f"consent as JWS {verify['jws_cpu_ms']:.2f} ms of processor time\n"
            f"facts for a decision {gather['few_cpu_ms']:.2f} ms with one consent, "
            f"{gather['many_cpu_ms']:.2f} ms with {consents:,}\n"
            f"a face beside {faces:,} protected ones {look['look_cpu_ms']:.2f} ms, "
            f"after {look['open_cpu_s']:.2f} s to open them once\n"
            f"after a revocation {stop['handed_out_bytes']:,} bytes were handed out (a chunk is "
            f"{stop['chunk_bytes']:,}), {stop['received_bytes']:,} bytes reached the client",
        )


def _cpu_ms(act: Callable[[], object], rounds: int) -> float:
    """Median processor time."""
    times_s = []
    for _ in range(rounds):
        started_s = time.process_time()
        act()
        times_s.append(time.process_time() - started_s)
    return round(1000 * sorted(times_s)[len(times_s) // 2], 3)


def _signatures(rounds: int) -> dict[str, float]:
    from policy.consent import (
        PURPOSE_RESEARCH,
        ConsentStatement,
        new_subject_key,
        public_jwk,
        sign_statement,
        verify_consent,
    )

    key = new_subject_key()
    statement = ConsentStatement(
        "sub_1", "org", _GRANTEE, (PURPOSE_RESEARCH,), ("0" * 64,), (), _NOW, _NOW + 99, 1, 0, "2026-11", "en"
    )
    token, public = sign_statement(statement, key), public_jwk(key)
    return {"jws_cpu_ms": _cpu_ms(lambda: verify_consent(token, public, _NOW), rounds)}


def _gathering(scratch: Path, num_consents: int, rounds: int) -> dict[str, float]:
    from sqlalchemy import insert

    from api.engine.facts import gather
    from api.faces import Likeness
    from api.storage.database import Database
    from api.storage.models import Client, Consent, Subject
    from policy.consent import PURPOSE_RESEARCH
    from policy.decision import RenderRequest
    from policy.identity import SCOPE_RENDER_CREATE, Actor

    database = Database.create(scratch / "many.sqlite3")
    statement = {
        "grantee_org": "org",
        "grantee_client": _GRANTEE,
        "purposes": [PURPOSE_RESEARCH],
        "portraits": ["0" * 64],
        "controls": [],
        "not_before": 0,
        "expires_at": _NOW + 99,
        "max_uses": 5,
    }

    def rows(subject_id: str, number: int) -> list[dict[str, Any]]:
        return [
            {
                "consent_id": f"con_{secrets.token_hex(8)}",
                "subject_id": subject_id,
                "sha256": secrets.token_hex(32),
                "signed": "",
                "statement": statement,
                "grantee_org": "org",
                "grantee_client": _GRANTEE,
                "expires_at": _NOW + 99,
                "epoch": 0,
                "created_at": _NOW,
                "revoked_at": None if at == 0 else float(_NOW),
                "log_index": 0,
            }
            for at in range(number)
        ]

    with database.write() as session:
        session.add(
            Client(client_id=_GRANTEE, kind="researcher", jwks={}, scopes=[], roles=[], created_at=0, log_index=0)
        )
        for subject_id in ("sub_few", "sub_many"):
            session.add(
                Subject(subject_id=subject_id, subject_class="persona", public_jwk={}, created_at=0, log_index=0)
            )
        session.flush()
        session.execute(insert(Consent), rows("sub_few", 1))
        session.execute(insert(Consent), rows("sub_many", num_consents))
    actor = Actor(_GRANTEE, "org", frozenset({SCOPE_RENDER_CREATE}))

    def ask(subject_id: str) -> None:
        request = RenderRequest.of(
            actor,
            subject_id=subject_id,
            portrait_sha256="0" * 64,
            speech_sha256="1" * 64,
            controls={},
            purpose=PURPOSE_RESEARCH,
            duration_s=1.0,
        )
        with database.read() as session:
            facts, consent = gather(session, request, now=_NOW, max_duration_s=60.0, likeness=Likeness())
        assert consent is not None and facts.consent is not None and not facts.consent.revoked

    result = {name: _cpu_ms(lambda who=f"sub_{name}": ask(who), rounds) for name in ("few", "many")}  # type: ignore[misc]
    database.close()
    return {f"{name}_cpu_ms": value for name, value in result.items()}


def _comparing(scratch: Path, num_faces: int, rounds: int) -> dict[str, float]:
    from api.faces import FaceGallery
    from api.storage.database import Database
    from api.storage.models import Portrait, Subject
    from api.storage.sealing import new_wrapped_key
    from generator.likeness import FaceTemplate
    from policy.keys import KeyRing

    keys = KeyRing.create(scratch / "keys")
    database = Database.create(scratch / "faces.sqlite3")
    gallery, rng = FaceGallery(database, keys), np.random.default_rng(20261122)
    with database.write() as session:
        for number in range(num_faces):
            subject = Subject(
                subject_id=f"sub_{number}",
                subject_class="adult",
                public_jwk={},
                created_at=0,
                log_index=0,
                wrapped_key=new_wrapped_key(f"sub_{number}", keys.service),
            )
            session.add(subject)
            session.flush()
            name = f"{number:064x}"
            session.add(Portrait(sha256=name, subject_id=subject.subject_id, sealed_blob="", summary={}, created_at=0))
            session.flush()
            values_D = rng.normal(size=128).astype(np.float32) / 8
            gallery.add(session, subject, name, FaceTemplate(values_D).to_bytes())
    asked = FaceTemplate(rng.normal(size=128).astype(np.float32) / 8).to_bytes()
    with database.read() as session:
        started_s = time.process_time()
        gallery.look(session, asked, None)
        open_cpu_s = time.process_time() - started_s
        look = _cpu_ms(lambda: gallery.look(session, asked, "sub_1"), rounds)
    database.close()
    return {"open_cpu_s": round(open_cpu_s, 3), "look_cpu_ms": look}


def _stopping(scratch: Path) -> dict[str, Any]:
    """A real server, a reader that takes its time, and a revocation in the middle."""
    import uvicorn

    from api.app import create_app
    from api.cli.root import listen
    from api.client import Credentials, PlacetClient
    from api.engine.delivery import CHUNK_BYTES
    from api.settings import Settings
    from api.setup import create_instance
    from api.storage.models import Consent, Render, Subject
    from policy.identity import SCOPE_RENDER_READ

    defaults = Settings(home=scratch / "home")
    listener = listen("127.0.0.1", 0, defaults.send_buffer_bytes)
    settings = Settings(home=scratch / "home", port=listener.getsockname()[1], prewarm=False, threads=1)
    create_instance(settings, "bench")
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    service, operator = app.state.service, Credentials.load(settings.operator_key_path)
    size_bytes = 8 * 1024 * 1024
    with PlacetClient(settings.base_url, operator) as client:
        made = client.register_client(
            kind="researcher",
            name="bench",
            org="org",
            scopes=[SCOPE_RENDER_READ],
            jwks=operator.public_jwks,
        )
    index = service.gate.record("delivery", {"of": "a benchmark"}).index
    with service.database.write() as session:
        session.add(Subject(subject_id="sub_1", subject_class="persona", public_jwk={}, created_at=0, log_index=0))
        session.flush()
        session.add(
            Consent(
                consent_id="con_1", subject_id="sub_1", sha256="0", signed="", statement={}, grantee_org="org",
                grantee_client="", expires_at=_NOW, epoch=0, created_at=0, log_index=0,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            Render(
                render_id="ren_1", client_id=made["client_id"], subject_id="sub_1", action="render", purpose="",
                controls={}, portrait_sha256="", speech_sha256="", speech_s=1.0, consent_id="con_1",
                status="delivered", decision_index=index, delivery_index=index, mark_id="0" * 16, created_at=0,
                video_sha256=service.blobs.put(secrets.token_bytes(size_bytes)),
            )
        )  # fmt: skip
    path = "/v1/renders/ren_1/video"
    with (
        PlacetClient(settings.base_url, Credentials(made["client_id"], operator.key)) as client,
        socket.socket() as reader,
    ):
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        reader.connect(("127.0.0.1", settings.port))
        headers = {"Host": "bench", **client.authorization("GET", path, SCOPE_RENDER_READ)}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        reader.sendall("\r\n".join(lines).encode())
        before = 0
        while before < size_bytes // 4:
            before += len(reader.recv(8192))
        with service.database.write() as session:
            session.get_one(Consent, "con_1").revoked_at = time.time()
        handed_out_before = service.metrics.value("placet_delivered_bytes_total")
        after = 0
        while received := _received(reader):
            after += len(received)
        handed_out = service.metrics.value("placet_delivered_bytes_total") - handed_out_before
        entry = service.log.entry(service.log.size - 1)
    server.should_exit = True
    thread.join(20)
    return {
        "chunk_bytes": CHUNK_BYTES,
        "send_buffer_bytes": settings.send_buffer_bytes,
        "file_bytes": size_bytes,
        "read_before_bytes": before,
        "handed_out_bytes": handed_out,
        "received_bytes": after,
        "log_entry": str(entry["kind"]),
    }


def _received(reader: socket.socket) -> bytes:
    try:
        return reader.recv(65_536)
    except ConnectionResetError:
        return b""
