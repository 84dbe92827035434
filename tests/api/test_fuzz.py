"""schemathesis over our OpenAPI document, against a running server, with real tokens: no 500, no undocumented answer.

Seeded. A short run is part of the default tests; the long one (`make test-heavy`) makes more than 2,000 requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.client import Credentials, PlacetClient
from api.clients import SCOPES_BY_KIND
from generator.personas import list_personas
from tests.api.conftest import Running, serving, vetted

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
SEED = 20261122
NUM_SHORT, NUM_LONG = 4, 60
"""Requests per operation."""

MEDIA_PATHS = frozenset({"/v1/renders", "/v1/detections", "/v1/subjects", "/v1/subjects/challenges"})
"""Left out of the short run, with whatever matches by content: they start processes that load models."""


class Caller:
    """Somebody of every kind, so that each operation can be called by one who may, each request with its own proof."""

    def __init__(self, server: Running, *, with_subject: bool) -> None:
        self._url = server.url
        operator = PlacetClient(server.url, Credentials.load(server.settings.operator_key_path))
        self._clients = {kind: vetted(server, operator, kind) for kind in ("researcher", "platform", "auditor")}
        self._clients["operator"] = operator
        if with_subject:
            subject = PlacetClient(server.url)
            subject.enrol(list_personas()[0].portrait(), subject_class="persona", rights_basis="made for this project")
            self._clients["subject"] = subject

    def headers(self, case: Case) -> dict[str, str]:
        """A token, and a proof if need be, for one request; nothing where the operation needs none."""
        security = case.operation.definition.raw.get("security", ())
        scopes = [scope for each in security for names in each.values() for scope in names]
        kind = next((kind for kind in self._clients if scopes and set(scopes) <= SCOPES_BY_KIND[kind]), None)
        if kind is None:
            return {}
        address = case.as_transport_kwargs(base_url=self._url)["url"]
        return self._clients[kind].authorization(case.method.upper(), str(address), scopes[0])


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of its own: what fuzzing leaves behind is nobody else's business."""
    home: Path = tmp_path_factory.mktemp("fuzzed") / "home"
    with serving(home, max_speech_s=5.0, intake_wall_s=20.0) as server:
        yield server


def fuzz(server: Running, num_requests: int, *, with_media: bool) -> Counter[str]:
    """Try every operation with up to `num_requests` made-up requests.

    Args:
        with_media: also those that take pictures and sound in.

    Returns: how many were sent, by class of status.
    """
    schema = schemathesis.openapi.from_dict(httpx.get(f"{server.url}/openapi.json").json())
    caller = Caller(server, with_subject=with_media)
    sent: Counter[str] = Counter()
    faults: dict[str, str] = {}

    def attempt(case: Case, is_authentic: bool) -> None:
        headers = caller.headers(case) if is_authentic else {}
        response = case.call(base_url=server.url, headers=headers, timeout=120)
        sent[f"{response.status_code // 100}xx"] += 1
        try:
            case.validate_response(response, checks=list(CHECKS))
        except (FailureGroup, Failure) as fault:
            place = f"{case.method.upper()} {case.operation.path} {response.status_code}"
            faults.setdefault(place, f"{place}\n{fault}\n{response.text[:400]}")

    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        is_media = operation.method.upper() == "POST" and (operation.path in MEDIA_PATHS or "Content" in operation.path)
        if is_media and not with_media:
            continue
        cases = operation.as_strategy()
        # one in five comes without a token
        run = given(case=cases, is_authentic=st.sampled_from([True, True, True, True, False]))(attempt)
        settings(
            max_examples=num_requests,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(seed(SEED)(run))()
    assert not faults, f"{len(faults)} kinds of fault in {sent.total()} requests:\n\n" + "\n\n".join(faults.values())
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    return sent


def test_a_few_made_up_requests_of_each_kind(fuzzed: Running) -> None:
    sent = fuzz(fuzzed, NUM_SHORT, with_media=False)
    assert sent.total() >= 100 and sent["5xx"] == 0, sent


@pytest.mark.heavy
def test_thousands_of_made_up_requests(fuzzed: Running) -> None:
    sent = fuzz(fuzzed, NUM_LONG, with_media=True)
    assert sent.total() >= 2000 and sent["5xx"] == 0, sent
    assert sent["2xx"] >= 100, "not all of it is refused at the door"
