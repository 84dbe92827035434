"""PostgreSQL and the S3 server go away for seconds while renders run: named refusals, and recovery without hands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api.client import Credentials, Enrolled, PlacetClient, ProblemError
from policy.consent import PURPOSE_RESEARCH
from policy.fsck import fsck
from tests.api.conftest import Running, make_wav, serving, vetted
from tests.api.test_gate import consent_to
from tests.simulators.stores import Stores, running_stores

pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.heavy]
AWAY_S = 5.0


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with running_stores() as running:
        yield running


@pytest.fixture(scope="module")
def shared(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("away") / "home", **stores.new()) as running:
        yield running


@pytest.fixture(scope="module")
def story(shared: Running, portrait: bytes) -> tuple[PlacetClient, Enrolled]:
    """Somebody who may render."""
    author = vetted(shared, PlacetClient(shared.url, Credentials.load(shared.settings.operator_key_path)), "researcher")
    with PlacetClient(shared.url) as person:
        enrolled = person.enrol(portrait, subject_class="persona", rights_basis="resembles nobody")
        consent_to(person, author, max_uses=50)
    return author, enrolled


def ask(story: tuple[PlacetClient, Enrolled]) -> dict[str, Any]:
    author, enrolled = story
    return author.render(
        subject_id=enrolled.subject_id,
        portrait_sha256=enrolled.portrait_sha256,
        speech=make_wav(1.0),
        purpose=PURPOSE_RESEARCH,
        controls={},
    )


def away(shared: Running, stop: Callable[[], None], start: Callable[[], None]) -> None:
    """What is seen while a store is away: not ready, alive, and every refusal by name."""
    stop()
    try:
        until = time.monotonic() + AWAY_S
        while time.monotonic() < until:
            assert httpx.get(f"{shared.url}/healthz").status_code == 200
            ready = httpx.get(f"{shared.url}/readyz", timeout=60)
            assert (ready.status_code, ready.json()["status"]) == (503, "failing")
    finally:
        start()


def test_without_the_database_nothing_is_decided_and_then_everything_goes_on(
    shared: Running, stores: Stores, story: tuple[PlacetClient, Enrolled]
) -> None:
    author, _ = story
    asked = ask(story)
    while author.render_status(asked["render_id"])["status"] == "queued":
        time.sleep(0.02)
    away(shared, stores.postgresql.kill, stores.postgresql.start)
    with pytest.raises(ProblemError) as lost:
        author.wait(asked, timeout_s=300)
    assert lost.value.code == "storage.unreachable"
    done = author.wait(ask(story), timeout_s=300)
    assert author.video(done["render_id"])
    assert fsck(shared.service.log.directory, shared.service.keys.log_publics).is_clean


def test_without_the_bucket_a_render_fails_by_name_and_the_next_one_is_delivered(
    shared: Running, stores: Stores, story: tuple[PlacetClient, Enrolled]
) -> None:
    author, _ = story
    done = author.wait(ask(story), timeout_s=300)
    away(shared, stores.s3.stop, stores.s3.start)
    assert author.video(done["render_id"])
    stores.s3.stop()
    try:
        with pytest.raises(ProblemError) as away_now:
            author.video(done["render_id"])
        assert (away_now.value.status, away_now.value.code) == (503, "storage.unreachable")
    finally:
        stores.s3.start()
    assert author.video(author.wait(ask(story), timeout_s=300)["render_id"])
