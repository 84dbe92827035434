"""`placet demo`: plays the whole story over HTTP against a real server, and keeps what came of it in one folder.

Nothing here has a private door: an operator, a subject, two researchers, a platform and an auditor each hold their own
key and speak to the server through `api.client`, as anybody would. Every step states what must happen; the first one
that goes otherwise ends the story with status 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import httpx
from rich.console import Console
from rich.table import Table

from api.client import Credentials, PlacetClient, ProblemError
from generator.personas import list_personas
from policy.consent import PURPOSE_RESEARCH, new_subject_key
from policy.evidence import LogEvidence, verify_evidence
from policy.note import parse_verifier_key
from watermark import attacks
from watermark.contact_sheet import contact_sheet
from watermark.credentials import read_credentials
from watermark.encoding import VideoCoding, encode_clip
from watermark.media import Clip, decode_clip

_MARKER: Final = "placet-demo.json"
"""Stands in every folder that a demo made, so that only such a folder is emptied for the next one."""
_START_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True)
class Step:
    """One thing that happened."""

    what: str
    expected: str
    got: str
    seconds: float
    log_index: int | None = None

    @property
    def is_as_expected(self) -> bool:
        return self.expected == self.got


class UnexpectedError(Exception):
    """A step did not end as it must."""

    code = "demo.unexpected"


class Story:
    """Keeps the steps, and says them as they happen."""

    def __init__(self, console: Console) -> None:
        self.steps: list[Step] = []
        self._console = console

    def play(self, what: str, expected: str, act: Callable[[], tuple[str, int | None]]) -> None:
        """Do one step. `act` returns what happened, and the log entry that records it.

        Raises: UnexpectedError.
        """
        started_at_s = time.perf_counter()
        with self._console.status(what):
            got, log_index = act()
        step = Step(what, expected, got, round(time.perf_counter() - started_at_s, 2), log_index)
        self.steps.append(step)
        mark = "[green]✓[/]" if step.is_as_expected else "[red]✗[/]"
        self._console.print(f"{mark} {what}: [bold]{got}[/]", highlight=False)
        if not step.is_as_expected:
            raise UnexpectedError(f"“{what}” should have ended with “{expected}”, but ended with “{got}”.")

    def table(self) -> Table:
        """What happened, short."""
        table = Table(title="What happened")
        for heading, justify in (("step", "left"), ("outcome", "left"), ("log entry", "right"), ("seconds", "right")):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for step in self.steps:
            index = "" if step.log_index is None else str(step.log_index)
            table.add_row(step.what, step.got, index, f"{step.seconds:.1f}")
        return table


def main() -> int:
    """Entry point. Returns the exit status: 0, or 1 where a step did not end as it must."""
    parser = argparse.ArgumentParser(prog="placet demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for the results")
    parser.add_argument("--json", action="store_true", help="only the JSON line on stdout (it is always the last line)")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    out: Path = arguments.out
    try:
        _empty(out)
    except FileExistsError as exc:
        console.print(f"[red]placet demo: {exc}[/]")
        return 2
    started_at_s, story, ok = time.perf_counter(), Story(console), False
    files: dict[str, Path] = {}
    try:
        _play(story, out, files, console)
        ok = True
    except (UnexpectedError, ProblemError) as exc:
        console.print(f"[red]The story stopped: {exc}[/] (server log: {out / 'server.log'})")
    console.print(story.table())
    for name, path in files.items():
        console.print(f"{name:<16} {path}", highlight=False)
    summary = {
        "ok": ok,
        "seconds": round(time.perf_counter() - started_at_s, 1),
        "steps": [asdict(step) for step in story.steps],
        "files": {name: str(path) for name, path in files.items()},
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
    }
    (out / _MARKER).write_text(json.dumps(summary, indent=2))
    print(json.dumps(summary, sort_keys=True))
    return 0 if ok else 1


def _play(story: Story, out: Path, files: dict[str, Path], console: Console) -> None:
    home = out / "instance"
    persona = list_personas()[0]
    if persona.sample_path is None:
        raise UnexpectedError("The persona has no speech sample; reinstall the package.")
    speech = persona.sample_path.read_bytes()
    files |= {"instance": home, "server log": out / "server.log"}

    story.play("create an instance (keys, private CA, database, log)", "done", lambda: (_init(home), None))
    with _server(home, out / "server.log") as url:
        console.print(f"  server at {url} (documentation at {url}/docs)", highlight=False)
        operator = PlacetClient(url, Credentials.load(home / "operator.jwk"))
        researcher = _vetted(operator, url, "researcher", "university-a", ["render:create", "render:read"])
        other = _vetted(operator, url, "researcher", "university-b", ["render:create", "render:read"])
        platform_client = _vetted(operator, url, "platform", "video-platform", ["detect:create"])
        auditor = _vetted(operator, url, "auditor", "ombuds-office", ["audit:read"])
        subject = PlacetClient(url)
        request: dict[str, Any] = {"speech": speech, "purpose": PURPOSE_RESEARCH}

        def enrol() -> tuple[str, int]:
            enrolled = subject.enrol(persona.portrait(), subject_class="persona", rights_basis=persona.attestation)
            request.update(subject_id=enrolled.subject_id, portrait_sha256=enrolled.portrait_sha256)
            return "enrolled", enrolled.log_index

        def ask(who: PlacetClient) -> tuple[str, int | None]:
            try:
                return "accepted", who.render(**request)["decision_index"]
            except ProblemError as problem:
                return f"{problem.status} {', '.join(problem.reasons) or problem.code}", problem.log_index

        story.play(f"the subject, {persona.display_name}, enrols", "enrolled", enrol)
        story.play("a stranger asks without a token", "401 token.missing", lambda: _without_token(url, request))
        story.play("the researcher asks without consent", "403 consent.missing", lambda: ask(researcher))

        consent: dict[str, Any] = {}

        def sign() -> tuple[str, int]:
            assert researcher.credentials is not None
            consent.update(
                subject.consent(
                    grantee_org="university-a",
                    grantee_client=researcher.credentials.client_id,
                    purposes=[PURPOSE_RESEARCH],
                    max_uses=3,
                    days=7,
                )
            )
            return "signed", consent["log_index"]

        story.play("the subject signs a consent: this researcher, research, 7 days, 3 uses", "signed", sign)
        story.play("another organisation asks", "403 consent.grantee_org, consent.grantee_client", lambda: ask(other))

        render: dict[str, Any] = {}

        def make() -> tuple[str, int]:
            render.update(researcher.wait(researcher.render(**request)))
            return "delivered", render["delivery_index"]

        story.play("the researcher asks again", "delivered", make)
        files |= _keep_video(out, researcher.video(render["render_id"]), home)

        def look(name: str, path: Path) -> tuple[str, int | None]:
            report = platform_client.detect(path.read_bytes(), "video/mp4")
            files[name] = out / f"{name.replace(' ', '-')}.json"
            files[name].write_text(json.dumps(report, indent=2))
            layers = report["layers"]
            seen = f"{report['verdict']}, manifest {layers['c2pa']['state']}, mark {layers['watermark']['state']}"
            return seen, report.get("log_index")

        story.play(
            "a platform checks the video",
            "generated_here, manifest trusted, mark detected",
            lambda: look("detection", files["video"]),
        )
        files["stripped video"] = _strip(out, files["video"])
        story.play(
            "it checks a re-encoded copy (CRF 30, half size, metadata stripped)",
            "generated_here, manifest absent, mark detected",
            lambda: look("detection stripped", files["stripped video"]),
        )
        story.play("the subject sees every use, each with its proof", "proven", lambda: _check_uses(subject))

        def revoke() -> tuple[str, int]:
            return "revoked", subject.revoke(consent["consent_id"])["log_index"]

        story.play("the subject revokes", "revoked", revoke)
        story.play("the researcher asks once more", "403 consent.revoked", lambda: ask(researcher))

        files["audit bundle"] = out / "audit-bundle.tar"
        files["audit bundle"].write_bytes(auditor.export())
        log_key = auditor.log_key()
    story.play(
        "the auditor checks the whole log from outside, with the server stopped",
        "every byte as signed",
        lambda: _verify_outside(files["audit bundle"], log_key),
    )


# -- the parties


def _vetted(operator: PlacetClient, url: str, kind: str, org: str, scopes: list[str]) -> PlacetClient:
    """A client that the operator has approved; its private key is made here and goes nowhere."""
    key = new_subject_key()
    unregistered = Credentials("", key)
    answer = operator.register_client(
        kind=kind, name=f"demo {kind}", org=org, project="demo", jwks=unregistered.public_jwks, scopes=scopes
    )
    return PlacetClient(url, Credentials(answer["client_id"], key))


def _without_token(url: str, request: dict[str, Any]) -> tuple[str, int | None]:
    fields = {name: value for name, value in request.items() if name != "speech"}
    answer = httpx.post(f"{url}/v1/renders", data=fields, files={"speech": request["speech"]}, timeout=60)
    problem = answer.json()
    return f"{answer.status_code} {problem['code']}", problem.get("log_index")


def _check_uses(subject: PlacetClient) -> tuple[str, int | None]:
    """Check the inclusion proof of every use on the subject's side, against the log's key."""
    uses, (_, log_key) = subject.uses(), parse_verifier_key(subject.log_key())
    for use in uses:
        verify_evidence(LogEvidence.from_json(use["evidence"]), log_key)
    return ("proven" if uses else "no uses"), uses[0]["log_index"] if uses else None


def _verify_outside(bundle: Path, log_key: str) -> tuple[str, None]:
    """In a process of its own, with nothing but the bundle and the key."""
    done = _placet("audit", "verify", "--bundle", str(bundle), "--log-key", log_key)
    return ("every byte as signed" if done.returncode == 0 else done.stdout.strip()), None


# -- the server


def _placet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "api.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _init(home: Path) -> str:
    done = _placet("init", "--home", str(home), "--name", "demo", "--json")
    return "done" if done.returncode == 0 else done.stderr.strip()


@contextmanager
def _server(home: Path, log: Path) -> Iterator[str]:
    """A real server on a free port; yields its address, stops it at the end."""
    command = [sys.executable, "-m", "api.cli", "serve", "--home", str(home), "--port", "0", "--json"]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise UnexpectedError(f"The server did not start; see {log}.")
        url = str(json.loads(line)["url"])
        _await_ready(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(url: str, process: subprocess.Popen[str]) -> None:
    give_up_at_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up_at_s and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise UnexpectedError("The server did not become ready.")


# -- the files


def _empty(out: Path) -> None:
    """Make the folder empty; only one that an earlier demo made is emptied. Raises FileExistsError."""
    if out.exists():
        if any(out.iterdir()) and not (out / _MARKER).is_file():
            raise FileExistsError(f"{out} is not empty and was not made by a demo: choose another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / _MARKER).write_text("{}")


def _keep_video(out: Path, video: bytes, home: Path) -> dict[str, Path]:
    files = {"video": out / "video.mp4", "contact sheet": out / "contact-sheet.png", "manifest": out / "manifest.json"}
    files["video"].write_bytes(video)
    clip = decode_clip(files["video"])
    sheet = contact_sheet(clip.frames_THWC, rate_hz=clip.rate_hz)
    cv2.imwrite(str(files["contact sheet"]), sheet[..., ::-1])
    root = (home / "pki" / "root.pem").read_text()
    files["manifest"].write_text(json.dumps(read_credentials(video, "video/mp4", root).manifest, indent=2))
    return files


def _strip(out: Path, video: Path) -> Path:
    """What a platform does to an upload: half size, CRF 30, no metadata."""
    stripped = out / "video-stripped.mp4"
    whole = decode_clip(video)
    small = attacks.resize(0.5)(Clip(whole.frames_THWC, whole.rate_hz, whole.sound, whole.times_T))
    encode_clip(small, stripped, VideoCoding("libx264", 30))
    return stripped
