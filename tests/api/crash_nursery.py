"""A service under load in children that can be killed, for `test_crash_under_load`: imports once, forks per round.

    stdin   one line per round
    stdout  pids of the children, then what they were told is done, then `end` once they are dead:
              entry INDEX          an append that was acknowledged
              output INDEX SHA256  a video that was delivered, and the index of its delivery entry

One child is the service itself: decisions, permits, a stand-in for the renderer that redeems them, deliveries,
refusals, several threads each. The other appends to the same log from outside, as the command line does.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from api.client import Credentials
from api.engine.renders import Submission
from api.engine.worker import Produced
from api.service import Service
from api.settings import Settings
from policy.consent import PURPOSE_EVALUATION
from policy.decision import ACTION_EVALUATE
from policy.identity import SCOPE_OPERATOR_ADMIN, Actor
from policy.instance import Instance
from policy.permit import PermitLedger, PermitVerifier

NUM_THREADS = 3
VIDEO = b"video of a stand-in "


class StandIn:
    """In place of the worker: redeems the permit like it, and writes some bytes for a video."""

    def __init__(self, service: Service) -> None:
        self.name = service.worker.name
        self.process = service.worker.process
        ledger = PermitLedger(service.instance.ledger_path)
        self._verifier = PermitVerifier(service.keys.permit_public, self.name, ledger, service.now)

    def render(
        self, authorise: Callable[[], tuple[str, Any]], *, portrait: bytes, speech: bytes, dst: Path, **rest: Any
    ) -> Produced:
        permit, _evidence = authorise()
        self._verifier.redeem(permit, portrait=portrait, speech=speech, controls=rest["controls"])
        video = VIDEO + secrets.token_bytes(4000)
        dst.write_bytes(video)
        return Produced(
            path=dst,
            sha256=hashlib.sha256(video).hexdigest(),
            manifest_store=b"manifest " + secrets.token_bytes(200),
            manifest_id=f"urn:{secrets.token_hex(8)}",
            num_frames=1,
            duration_s=0.04,
        )


def serve(home: Path) -> None:
    """The service, with several threads that each do one thing after the other until they are killed."""
    service = Service(Settings(home=home, prewarm=False))
    service.worker = StandIn(service)  # type: ignore[assignment]
    service.start()
    operator = Credentials.load(service.settings.operator_key_path)
    org = service.clients.find(operator.client_id).org
    actor = Actor(operator.client_id, org, frozenset({SCOPE_OPERATOR_ADMIN}), frozenset({"operator"}))

    def render() -> None:
        portrait = secrets.token_bytes(16)
        submission = Submission(
            subject_id=None,
            portrait=portrait,
            portrait_sha256=hashlib.sha256(portrait).hexdigest(),
            speech=secrets.token_bytes(16),
            speech_s=0.04,
            purpose=PURPOSE_EVALUATION,
            controls={},
            action=ACTION_EVALUATE,
            attested_class="synthetic",
        )
        job = service.renders.decide(actor, submission)
        tell(f"entry {job.ruling.evidence.index}")
        service.renders.run(job)
        made = service.renders.find(job.render_id, actor.client_id)
        assert made.status == "delivered", made.failure_code
        tell(f"output {made.delivery_index} {made.video_sha256}")

    def refuse() -> None:
        tell(f"entry {service.gate.record('enrolment.refused', {'code': 'statement.signature'}).index}")

    for work in [render] * NUM_THREADS + [refuse] * NUM_THREADS:
        threading.Thread(target=for_ever, args=(work,), daemon=True).start()


def append(home: Path) -> None:
    """Another process on the same log."""
    log = Instance.open(home).log
    for _ in range(NUM_THREADS):
        work = lambda: tell(f"entry {log.append('outside', {}).index}")  # noqa: E731
        threading.Thread(target=for_ever, args=(work,), daemon=True).start()


def for_ever(work: Callable[[], None]) -> None:
    try:
        while True:
            work()
    except BaseException:
        traceback.print_exc()
        os._exit(4)


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write, so that no line is torn


def main() -> None:
    home = Path(sys.argv[1])
    for _line in sys.stdin:
        children = []
        for role in (serve, append):
            if pid := os.fork():
                children.append(pid)
                continue
            try:
                role(home)
                time.sleep(600)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(3)
        tell("pids " + " ".join(map(str, children)))
        statuses = [os.waitstatus_to_exitcode(os.wait()[1])]
        for pid in children:  # nothing to do for those that are dead; if one ended by itself, the other goes too
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        statuses += [os.waitstatus_to_exitcode(os.wait()[1]) for _ in children[1:]]
        tell(f"end {' '.join(map(str, statuses))}")


if __name__ == "__main__":
    main()
