"""The Soft Binding Resolution API, held against the C2PA's own document; and what a revoked consent does to it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from api.client import PlacetClient, ProblemError
from api.storage.models import Consent, Mark, Render, Subject
from policy.identity import SCOPE_DETECT_CREATE, SCOPE_FETCH_MANIFESTS
from tests.api.conftest import Running, vetted
from tests.watermark.clips import talking
from watermark.attacks import h264
from watermark.authority import SigningAuthority
from watermark.credentials import Ingredient, ManifestSpec, read_store
from watermark.encoding import encode_clip, encode_sound_wav
from watermark.manifest import SOFT_BINDING_ALGORITHM
from watermark.mark import UnmarkedFrames, produce
from watermark.payload import MarkId
from watermark.resolver import value_of

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "softbinding" / "resolution-api-1.0.json").read_text())


def conforms(document: Any, schema: str) -> bool:
    return bool(jsonschema_rs.validator_for(VECTOR["schemas"][f"c2pa.{schema}"]).is_valid(document))


@dataclass(frozen=True)
class Delivered:
    """A marked video in the register, as after a delivery."""

    mark_id: MarkId
    manifest_id: str
    store: bytes
    consent_id: str
    file: Path


@pytest.fixture(scope="module")
def delivered(server: Running, operator: PlacetClient, tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """Marked with the instance's key, signed with its key, put on record; only the renderer is left out."""
    service, folder = server.service, tmp_path_factory.mktemp("delivered")
    clip, mark_id = talking(256, 256, 3.0), MarkId.from_hex("5eed5eed5eed5eed")
    assert clip.sound is not None
    part = Ingredient(encode_sound_wav(clip.sound), "audio/wav", "Speech")
    made = produce(
        [UnmarkedFrames(clip.frames_THWC)],
        clip.sound,
        rate_hz=25.0,
        mark_id=mark_id,
        key=service.keys.watermark_key,
        spec=ManifestSpec("Talking portrait", part, part, mark_id, {"sha256": "5e" * 32}, {"index": 0}, "0"),
        authority=SigningAuthority.load(service.instance.pki, key=service.keys.c2pa_key),
        dst=folder / "clip.mp4",
    )
    now = service.now()
    with service.database.write() as session:
        session.add(
            Subject(subject_id="sub_resolver", subject_class="adult", public_jwk={}, created_at=now, log_index=0)
        )
        session.flush()
        session.add(
            Consent(
                consent_id="con_resolver",
                subject_id="sub_resolver",
                sha256="5e" * 32,
                signed="",
                statement={},
                grantee_org="university",
                grantee_client="",
                expires_at=int(now) + 1000,
                epoch=0,
                created_at=now,
                log_index=0,
            )
        )
        session.flush()
        session.add(
            Render(
                render_id="ren_resolver",
                client_id=operator.credentials.client_id,
                subject_id="sub_resolver",
                action="render",
                purpose="urn:placet:purpose:education",
                controls={},
                portrait_sha256="0" * 64,
                speech_sha256="0" * 64,
                speech_s=3.0,
                consent_id="con_resolver",
                status="delivered",
                decision_index=0,
                mark_id=mark_id.hex,
                manifest_id=made.manifest_id,
                manifest_sha256=service.blobs.put(made.manifest_store),
                video_sha256=made.sha256,
                created_at=now,
            )
        )
        session.flush()
        session.add(Mark(mark_id=mark_id.hex, render_id="ren_resolver", created_at=now))
    return Delivered(mark_id, made.manifest_id, made.manifest_store, "con_resolver", made.path)


@pytest.fixture(scope="module")
def platform(server: Running, operator: PlacetClient) -> PlacetClient:
    return vetted(server, operator, "platform", org="resolvers")


def call(server: Running, client: PlacetClient, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {client.token(SCOPE_FETCH_MANIFESTS)}"} | options.pop("headers", {})
    return httpx.request(method, f"{server.url}/softbinding{path}", headers=headers, timeout=300, **options)


# ---- the document ----------------------------------------------------------------------------------------------------


def test_paths_parameters_and_scopes_are_those_of_the_document(server: Running) -> None:
    ours = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path, operations in VECTOR["paths"].items():
        here = ours["/softbinding" + path.replace("{manifestId}", "{manifest_id}")]
        for method, operation in operations.items():
            names = {each["name"] for each in here[method].get("parameters", [])}
            wanted = {each["name"] for each in operation["parameters"]} - {"manifestId"}
            assert names - {"manifest_id"} == wanted, (path, method)
            scopes = [scope for each in here[method].get("security", []) for found in each.values() for scope in found]
            assert scopes == operation["scopes"], (path, method)


def test_algorithms_are_listed_for_everyone(server: Running) -> None:
    answer = httpx.get(f"{server.url}/softbinding/services/supportedAlgorithms")
    assert answer.status_code == 200 and conforms(answer.json(), "softBindingAlgList")
    assert {"alg": SOFT_BINDING_ALGORITHM} in answer.json()["watermarks"]


# ---- by binding ------------------------------------------------------------------------------------------------------


def test_a_mark_leads_to_its_manifest(server: Running, platform: PlacetClient, delivered: Delivered) -> None:
    query = {"alg": SOFT_BINDING_ALGORITHM, "value": value_of(delivered.mark_id)}
    assert conforms(query, "softBindingQuery")
    for options in ({"method": "GET", "params": query}, {"method": "POST", "json": query, "params": {"maxResults": 3}}):
        answer = call(server, platform, options.pop("method"), "/matches/byBinding", **options)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        assert conforms(answer.json(), "softBindingQueryResult")
        (match,) = answer.json()["matches"]
        assert (match["manifestId"], match["similarityScore"]) == (delivered.manifest_id, 100)
        assert match["org.placet.consent"] in ("in_force", "revoked")


def test_an_unknown_mark_has_no_match(server: Running, platform: PlacetClient) -> None:
    query = {"alg": SOFT_BINDING_ALGORITHM, "value": value_of(MarkId(1))}
    answer = call(server, platform, "GET", "/matches/byBinding", params=query)
    assert (answer.status_code, answer.json()) == (200, {"matches": []})


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"value": "!"}, 400),
        ({"value": base64.b64encode(b"short").decode()}, 400),
        ({"alg": "com.example.1"}, 400),
        ({"maxResults": 0}, 400),
        ({"maxResults": "many"}, 400),
        ({"value": "A" * 2000}, 414),
    ],
)
def test_bad_queries_get_the_documents_status(
    changes: dict[str, Any], status: int, server: Running, platform: PlacetClient
) -> None:
    query = {"alg": SOFT_BINDING_ALGORITHM, "value": value_of(MarkId(1)), **changes}
    answer = call(server, platform, "GET", "/matches/byBinding", params=query)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


# ---- by content ------------------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_stripped_and_re_encoded_file_leads_to_its_manifest(
    server: Running, platform: PlacetClient, delivered: Delivered, tmp_path: Path
) -> None:
    from watermark.media import decode_clip

    copy = h264(30)(decode_clip(delivered.file))
    encode_clip(copy, tmp_path / "copy.mp4")
    answer = call(
        server,
        platform,
        "POST",
        "/matches/byContent",
        content=(tmp_path / "copy.mp4").read_bytes(),
        headers={"Content-Type": "video/mp4"},
        params={"alg": SOFT_BINDING_ALGORITHM},
    )
    assert answer.status_code == 200, answer.text
    assert conforms(answer.json(), "softBindingQueryResult")
    (match,) = answer.json()["matches"]
    assert match["manifestId"] == delivered.manifest_id
    report = httpx.post(
        f"{server.url}/v1/detections",
        headers={"Authorization": f"Bearer {platform.token(SCOPE_DETECT_CREATE)}", "Content-Type": "video/mp4"},
        content=(tmp_path / "copy.mp4").read_bytes(),
        timeout=300,
    ).json()
    assert report["layers"]["c2pa"]["state"] == "absent"
    record = report["layers"]["watermark"]["record"]
    assert record["statement"] == "manifest signature valid, content matched by watermark"
    assert (record["manifest_id"], record["manifest_state"]) == (delivered.manifest_id, "trusted")


def test_other_content_has_no_match_and_no_media_is_refused(server: Running, platform: PlacetClient) -> None:
    options = {"content": b"words", "headers": {"Content-Type": "text/plain"}}
    assert call(server, platform, "POST", "/matches/byContent", **options).status_code == 415
    options = {"content": b"words", "headers": {"Content-Type": "chemical/x-pdb"}}
    assert call(server, platform, "POST", "/matches/byContent", **options).status_code == 415


# ---- manifests -------------------------------------------------------------------------------------------------------


def test_a_manifest_is_given_out_whole_or_alone(server: Running, platform: PlacetClient, delivered: Delivered) -> None:
    path = f"/manifests/{delivered.manifest_id}"
    whole = call(server, platform, "GET", path)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "application/c2pa")
    assert whole.content == delivered.store
    root = server.service.trust_roots_pem.decode()
    assert read_store(whole.content, root).state == "trusted"
    alone = call(server, platform, "GET", path, params={"returnActiveManifest": "true"})
    assert read_store(alone.content, root).manifest_id == delivered.manifest_id


def test_unknown_and_malformed_manifest_ids(server: Running, platform: PlacetClient) -> None:
    assert call(server, platform, "GET", "/manifests/urn:c2pa:0").status_code == 404
    assert call(server, platform, "GET", "/manifests/nonsense").status_code == 400


def test_the_register_has_the_signed_fingerprints(server: Running, delivered: Delivered) -> None:
    record = server.service.manifests.recovered(delivered.mark_id.hex)
    assert record is not None and record["manifest_state"] == "trusted" and record["fingerprints"]


def test_a_revoked_consent_shows_in_every_answer(server: Running, platform: PlacetClient, delivered: Delivered) -> None:
    def states() -> tuple[str, str, bool]:
        query = {"alg": SOFT_BINDING_ALGORITHM, "value": value_of(delivered.mark_id)}
        (match,) = call(server, platform, "GET", "/matches/byBinding", params=query).json()["matches"]
        manifest = call(server, platform, "GET", f"/manifests/{delivered.manifest_id}")
        found = server.service.manifests.resolve(delivered.mark_id.hex)
        assert found is not None
        return match["org.placet.consent"], manifest.headers["placet-consent"], found[1]

    assert states() == ("in_force", "in_force", False)
    with server.service.database.write() as session:
        session.get_one(Consent, delivered.consent_id).revoked_at = server.service.now()
    assert states() == ("revoked", "revoked", True)


# ---- who may ask -----------------------------------------------------------------------------------------------------


def test_the_scope_is_needed_and_opens_nothing_else(server: Running, platform: PlacetClient) -> None:
    path = f"{server.url}/softbinding/manifests/urn:c2pa:0"
    assert httpx.get(path).status_code == 401
    other = {"Authorization": f"Bearer {platform.token(SCOPE_DETECT_CREATE)}"}
    assert httpx.get(path, headers=other).status_code == 401
    own = {"Authorization": f"Bearer {platform.token(SCOPE_FETCH_MANIFESTS)}", "Content-Type": "image/png"}
    assert httpx.post(f"{server.url}/v1/detections", headers=own, content=b"x").status_code == 401
    with pytest.raises(ProblemError):
        platform.token(f"{SCOPE_FETCH_MANIFESTS} {SCOPE_DETECT_CREATE}")
