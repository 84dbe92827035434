"""Two servers behind one address, in front of one database, one bucket and one log: it does not matter who answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client import Credentials, PlacetClient, ProblemError
from policy.consent import PURPOSE_RESEARCH
from policy.fsck import fsck
from tests.api.conftest import Running, make_wav, serving, vetted
from tests.api.test_gate import consent_to
from tests.simulators.balancer import balancing
from tests.simulators.stores import free_port, running_stores

pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.heavy]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running, Running]]:
    """The address of both, and each of them."""
    home, port = tmp_path_factory.mktemp("pair") / "home", free_port()
    url = f"http://127.0.0.1:{port}"
    with running_stores() as stores:
        shared: dict[str, Any] = stores.new() | {"issuer": url}
        with (
            serving(home, worker_name="worker-1", **shared) as first,
            serving(home, worker_name="worker-2", **shared) as second,
            balancing(port, [first.settings.port, second.settings.port]) as chosen,
        ):
            yield url, first, second
            assert {first.settings.port, second.settings.port} == set(chosen)


def fresh(url: str, client: PlacetClient) -> PlacetClient:
    """The same client on a new connection, which the other server gets."""
    return PlacetClient(url, client.credentials)


def test_the_story_is_one_whoever_answers(pair: tuple[str, Running, Running], portrait: bytes) -> None:
    url, first, second = pair
    operator = PlacetClient(url, Credentials.load(first.settings.operator_key_path))
    author = vetted(first, operator, "researcher")
    with PlacetClient(url) as person:
        enrolled = person.enrol(portrait, subject_class="persona", rights_basis="resembles nobody")
        consent = consent_to(person, author, controls=("seed",))
        asked = author.render(
            subject_id=enrolled.subject_id,
            portrait_sha256=enrolled.portrait_sha256,
            speech=make_wav(1.0),
            purpose=PURPOSE_RESEARCH,
            controls={"seed": 1},
        )
        done = author.wait(asked, timeout_s=300)
        videos = {fresh(url, author).video(done["render_id"]) for _ in range(4)}
        assert len(videos) == 1
        person.revoke(consent["consent_id"])
        for _ in range(4):
            with pytest.raises(ProblemError):
                fresh(url, author).video(done["render_id"])
    assert first.service.log.size == second.service.log.size
    assert fsck(first.service.log.directory, first.service.keys.log_publics).is_clean


def test_entries_of_both_at_once_are_all_there(pair: tuple[str, Running, Running]) -> None:
    _, first, second = pair
    size = first.service.log.size

    def write(server: Running) -> None:
        for number in range(50):
            server.service.log.append("test", {"n": number})

    threads = [threading.Thread(target=write, args=(server,)) for server in (first, second) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert first.service.log.size == second.service.log.size >= size + 200


def test_a_name_is_taken_once(pair: tuple[str, Running, Running], tmp_path: Path) -> None:
    from api.errors import ConflictError
    from api.service import take_home

    with pytest.raises(ConflictError, match="under this name"):
        take_home(pair[1].settings.home, "worker-2")
