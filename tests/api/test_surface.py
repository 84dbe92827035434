"""The face of the service: documentation, health, metrics, settings, and a status for every error code."""

from __future__ import annotations

import importlib
import inspect

import httpx
import pytest
from pydantic import ValidationError

from api.errors import STATUS_BY_CODE, ApiError, status_of
from api.settings import Settings
from tests.api.conftest import Running

ROUTES = {
    ("POST", "/oauth/token"),
    ("POST", "/v1/renders"),
    ("GET", "/v1/renders/{render_id}"),
    ("GET", "/v1/renders/{render_id}/video"),
    ("GET", "/v1/renders/{render_id}/manifest"),
    ("POST", "/v1/detections"),
    ("POST", "/v1/subjects/challenges"),
    ("POST", "/v1/subjects"),
    ("GET", "/v1/subjects/me"),
    ("GET", "/v1/subjects/me/uses"),
    ("POST", "/v1/consents"),
    ("GET", "/v1/consents/{consent_id}"),
    ("POST", "/v1/consents/{consent_id}/revocation"),
    ("GET", "/v1/audit/entries"),
    ("GET", "/v1/audit/checkpoint"),
    ("GET", "/v1/audit/export"),
    ("GET", "/v1/audit/search"),
    ("POST", "/v1/audit/entries/{index}/replay"),
    ("POST", "/v1/audit/reveals"),
    ("GET", "/v1/audit/alarms"),
    ("GET", "/tlog/checkpoint"),
    ("POST", "/v1/operators/clients"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}
PUBLIC = {
    "/oauth/token",
    "/oauth/revoke",
    "/oauth/introspect",
    "/oauth/jwks",
    "/.well-known/oauth-authorization-server",
    "/v1/subjects/challenges",
    "/v1/applications",
    "/v1/applications/{application_id}",
    "/v1/detections/model-card",
    "/v1/detections/limits",
    "/v1/texts",
    "/v1/texts/{kind}/{version}/{language}",
    "/softbinding/services/supportedAlgorithms",
    "/pki/root.pem",
    "/pki/ocsp",
    "/pki/ocsp/{encoded}",
    "/v1/audit/checkpoint",
    "/v1/audit/key",
    "/tlog/checkpoint",
    "/tlog/tile/{path}",
    "/healthz",
    "/readyz",
    "/metrics",
}
WITHOUT_BODY = {
    "/v1/operators/clients/{client_id}/suspension",
    "/v1/audit/entries/{index}/replay",
    "/v1/subjects/me/passkeys/challenges",
    "/v1/detections/uploads",
    "/pki/ocsp",
}


def test_every_route_is_documented_and_says_which_scope_it_needs(server: Running) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    found = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert found >= ROUTES
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], path
            is_public = path in PUBLIC or (method, path) == ("post", "/v1/subjects")
            assert bool(operation.get("security")) != is_public, f"{method} {path}"
            if method == "post" and path not in WITHOUT_BODY:
                assert "requestBody" in operation, path


def test_the_documentation_page_needs_no_other_host(server: Running) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200 and "/v1/renders" in page.text
    assert "<script" not in page.text and "http://" not in page.text.replace(server.url, "")
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_health_and_metrics(server: Running) -> None:
    assert httpx.get(f"{server.url}/healthz").json()["status"] == "ok"
    ready = httpx.get(f"{server.url}/readyz").json()
    assert ready["status"] == "ok" and ready["log_size"] >= 2
    text = httpx.get(f"{server.url}/metrics").text
    assert 'placet_http_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert "placet_log_size " in text
    for line in text.splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


def test_every_error_of_every_package_has_a_status() -> None:
    for module in ("policy.errors", "watermark.errors", "generator.errors", "detector.errors"):
        for name, kind in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if issubclass(kind, Exception) and kind.__module__ == module:
                assert status_of(kind.code) is not None or kind.code == "policy.error", f"{module}.{name}"
    for kind in _subclasses(ApiError):
        assert status_of(kind.code) is not None or kind.code == "api", kind


def test_statuses_are_what_http_knows() -> None:
    assert set(STATUS_BY_CODE.values()) <= {400, 401, 403, 404, 409, 413, 414, 415, 416, 422, 429, 500, 503}


def _subclasses(kind: type) -> set[type]:
    return {each for child in kind.__subclasses__() for each in {child} | _subclasses(child)}


def test_every_setting_is_documented_and_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
    monkeypatch.setenv("PLACET_PORT", "9999")
    monkeypatch.setenv("PLACET_ISSUER", "https://placet.example/")
    settings = Settings()
    assert settings.port == 9999 and settings.base_url == "https://placet.example"


@pytest.mark.parametrize(
    "issuer", ["placet.example", "ftp://x", "http://placet.example", "https://x?a=1", "https://x#a"]
)
def test_an_unsafe_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(ValidationError):
        Settings(issuer=issuer)


def test_tokens_never_live_longer_than_five_minutes() -> None:
    with pytest.raises(ValidationError):
        Settings(token_lifetime_s=301)
