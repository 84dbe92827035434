"""Nothing secret and nobody's name in anything that is written: output, log files of the service, entries of the log.

A server of its own, as an operator starts it, with both its outputs kept. Everything that a client sends or gets that
looks like a token, a proof or a signed statement is collected on the way, together with every key there is; afterwards
none of it may be found in what was written.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from api.client import Credentials, PlacetClient, ProblemError
from api.settings import Settings
from api.setup import create_instance
from generator.personas import list_personas
from policy.consent import PURPOSE_EDUCATION, PURPOSE_RESEARCH, new_subject_key
from policy.instance import Instance
from tests.api.conftest import make_wav

ROOT = Path(__file__).parents[2]
SIGNED = re.compile(r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}")
SHAPES = {
    "a PEM block": re.compile(r"-----BEGIN [A-Z ]+-----"),
    "a compact JWS": re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "a private JWK": re.compile(r'"d"\s*:\s*"[A-Za-z0-9_-]{40,}"'),
    "an Authorization header": re.compile(r"(?i)authorization['\"]?\s*[:=]\s*['\"]?(bearer|dpop)\s+\S{16,}"),
}
PEOPLE = ("Wilhelmina Quarterstaff", "quarterstaff@example.org", "the Quarterstaff bequest", "Ünlü-Brontë")


@dataclass
class Ears:
    """Hears everything that is said between clients and server."""

    heard: set[str] = field(default_factory=set)

    def client(self, url: str, credentials: Credentials | None = None) -> PlacetClient:
        return PlacetClient(url, credentials, transport=_Listening(self))


class _Listening(httpx.HTTPTransport):
    def __init__(self, ears: Ears) -> None:
        super().__init__()
        self._ears = ears

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        said = [request.read().decode("latin-1")]
        said += [request.headers.get(name, "") for name in ("authorization", "dpop", "cookie")]
        response = super().handle_request(request)
        if "json" in response.headers.get("content-type", ""):
            said.append(response.read().decode())
        for text in said:
            self._ears.heard.update(SIGNED.findall(text))
        return response


@dataclass
class Outcome:
    """What was written, and what must not be in it."""

    written: dict[str, str]
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("secrets")
    settings = Settings(home=folder / "home")
    create_instance(settings, "quiet")
    environment = os.environ | {"PLACET_THREADS": "1", "PLACET_PREWARM": "false"}
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "serve", "--home", str(settings.home), "--port", "0", "--json"],
            cwd=ROOT, env=environment, stdout=stdout, stderr=stderr,
        )  # fmt: skip
        try:
            ears = Ears()
            keys = play(settings, ears, server, out)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    instance = Instance.open(settings.home)
    entries = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in instance.log.entries(0, 1000))
    ring = instance.keys
    raw = {
        **{f"watermark key {nth}": key for nth, key in enumerate(ring.watermark_keys)},
        "commitment key": ring.commitment_key,
        "wrapping key of subjects": ring.service.secrets("subject-wrap")[0],  # type: ignore[attr-defined]
    }
    secrets = {f"token or statement {nth}": text for nth, text in enumerate(sorted(ears.heard))}
    secrets |= {f"client key {nth}": str(key["d"]) for nth, key in enumerate(keys)}
    for name, key in raw.items():
        secrets |= {f"{name}, hex": key.hex(), f"{name}, base64": base64.b64encode(key).decode()}
    secrets |= {f"person {nth}": name for nth, name in enumerate(PEOPLE)}
    assert len(ears.heard) > 20, "the ears are deaf"
    yield Outcome({"stdout": out.read_text(), "stderr": err.read_text(), "log": entries}, secrets)


def play(settings: Settings, ears: Ears, server: subprocess.Popen[bytes], out: Path) -> list[dict[str, str]]:
    """The main flows, good and bad. Returns all private keys that clients used."""
    url = ""
    while not url:
        assert server.poll() is None, "the server did not start"
        lines = out.read_text().splitlines()
        url = json.loads(lines[0])["url"] if lines else ""
    operator = ears.client(url, Credentials.load(settings.operator_key_path))
    keys = [new_subject_key() for _ in range(3)]
    kinds = {"researcher": ["render:create", "render:read"], "auditor": ["audit:read"], "platform": ["detect:create"]}
    clients = []
    for key, (kind, scopes) in zip(keys, kinds.items(), strict=True):
        made = operator.register_client(
            kind=kind, name=PEOPLE[0], org="uni", scopes=scopes, project=PEOPLE[2],
            ethics_reference=PEOPLE[1], jwks=Credentials("", key).public_jwks,
        )  # fmt: skip
        clients.append(ears.client(url, Credentials(made["client_id"], key)))
    researcher, auditor, platform = clients
    persona = list_personas()[0].portrait()
    subject = ears.client(url)
    enrolled = subject.enrol(persona, subject_class="persona", rights_basis=PEOPLE[3])
    assert researcher.credentials is not None and subject.credentials is not None
    order = {"subject_id": enrolled.subject_id, "speech": make_wav(0.8), "portrait_sha256": enrolled.portrait_sha256}
    _refused(lambda: researcher.render(**order, purpose=PURPOSE_RESEARCH))
    given = subject.consent(
        grantee_org="uni", grantee_client=researcher.credentials.client_id, purposes=(PURPOSE_RESEARCH,)
    )
    _refused(lambda: researcher.render(**order, purpose=PURPOSE_EDUCATION))
    made = researcher.render(**order, purpose=PURPOSE_RESEARCH)
    researcher.wait(made["render_id"])
    _patiently(lambda: platform.detect(persona, "image/png"))
    subject.uses()
    subject.revoke(given["consent_id"])
    _refused(lambda: ears.client(url).enrol(b"not a picture", subject_class="adult", adult_attested=True))
    assert "instance.created" in json.dumps(auditor.entry(0))
    # what is refused at the door: tokens of others, broken ones, replayed proofs, odd headers
    token = researcher.token("render:read")
    for header in (
        f"Bearer {token}", f"DPoP {token}", f"Bearer {token[:-4]}AAAA", f"Bearer {token}\u00e9", "Basic abc",
        "Bearer " + "eyJhbGciOiJub25lIn0." + token.split(".")[1] + ".",
    ):  # fmt: skip
        answer = httpx.get(f"{url}/v1/renders/ren_0000000000000000", headers={"Authorization": header.encode()})
        assert answer.status_code in (400, 401), answer.text
    httpx.post(f"{url}/oauth/token", data={"grant_type": "client_credentials", "client_assertion": token})
    httpx.get(f"{url}/v1/audit/entries?access_token={token}&name={PEOPLE[0]}")
    return [dict(each) for each in (*keys, subject.credentials.key)]


def _patiently(call: Callable[[], object]) -> None:
    """A busy machine may need more than one start of an engine process."""
    for _ in range(3):
        try:
            call()
            return
        except ProblemError as problem:
            if not problem.code.startswith("engine."):
                raise


def _refused(call: object) -> None:
    with pytest.raises(ProblemError):
        call()  # type: ignore[operator]


@pytest.mark.heavy
@pytest.mark.parametrize("where", ["stdout", "stderr", "log"])
def test_no_secret_and_no_name_is_written(outcome: Outcome, where: str) -> None:
    text = outcome.written[where]
    found = [name for name, secret in outcome.secrets.items() if secret in text]
    assert not found, f"in {where}: {found}"
    for shape, pattern in SHAPES.items():
        assert not (match := pattern.search(text)), f"{shape} in {where} at {match.start()}"


@pytest.mark.heavy
def test_the_search_would_find_something(outcome: Outcome) -> None:
    """The entries are there, and the shapes match what they are for."""
    assert '"decision"' in outcome.written["log"] and "token.rejected" in outcome.written["log"]
    token = next(secret for secret in outcome.secrets.values() if secret.startswith("eyJ"))
    assert SHAPES["a compact JWS"].search(f"x {token} y")
    assert SHAPES["an Authorization header"].search(f"Authorization: Bearer {token}")
    assert SHAPES["a private JWK"].search(json.dumps(new_subject_key()))
