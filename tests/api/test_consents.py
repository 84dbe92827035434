"""Consents over HTTP: signed with a passkey or a key, drafted in plain words, narrowed, counted, limited, erased."""

from __future__ import annotations

import io
import json
import secrets
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import event, insert, select

from api.client import Enrolled, PlacetClient, ProblemError
from api.consents import MAX_LIVE_CONSENTS_PER_CLIENT
from api.engine.facts import candidates, gather
from api.faces import Likeness
from api.storage.models import Consent, Passkey, Portrait, Render, Subject, Template, Use
from generator.controls import MotionControls
from policy.canonical import canonical_json
from policy.consent import (
    PURPOSE_EDUCATION,
    PURPOSE_RESEARCH,
    ConsentStatement,
    EnrolmentStatement,
    ErasureStatement,
    RevocationStatement,
    key_thumbprint,
    new_subject_key,
    sign_statement,
)
from policy.decision import RenderRequest
from policy.evidence import LogEvidence, verify_evidence
from policy.identity import SCOPE_RENDER_CREATE, SCOPE_SUBJECT_SELF, Actor
from policy.statement import decode_base64url, sign_payload
from policy.texts import shown_text
from tests.api.conftest import Running, altered, vetted
from tests.api.test_bad_input import check_problem
from tests.authenticator import Authenticator


@pytest.fixture(scope="module")
def mara(server: Running, portrait: bytes) -> Iterator[tuple[PlacetClient, Enrolled]]:
    """A second subject, with a face of her own."""
    with PlacetClient(server.url) as client:
        yield client, client.enrol(altered(portrait, 1), subject_class="adult", adult_attested=True, language="de")


@pytest.fixture(scope="module")
def passkey(server: Running, mara: tuple[PlacetClient, Enrolled]) -> Authenticator:
    """Mara's passkey, registered beside her key."""
    key = authenticator(server)
    options = post(mara[0], "/v1/subjects/me/passkeys/challenges")["options"]
    registration = key.register(decode_base64url(options["challenge"]))
    made = post(mara[0], "/v1/subjects/me/passkeys", {"registration": registration, "label": "phone"})
    assert made["label"] == "phone"
    return key


def authenticator(server: Running, **changes: Any) -> Authenticator:
    site = server.service.passkeys.site
    return Authenticator(rp_id=site.rp_id, origin=site.origin, **changes)


def post(client: PlacetClient, path: str, body: Any = None) -> dict[str, Any]:
    return client._json("POST", path, SCOPE_SUBJECT_SELF, json=body)


def raw(client: PlacetClient, path: str, content: bytes, method: str = "POST") -> httpx.Response:
    headers = {"Content-Type": "application/json", **client.authorization(method, path, SCOPE_SUBJECT_SELF)}
    return client._http.request(method, path, content=content, headers=headers)


def with_passkey(statement: Any, key: Authenticator) -> dict[str, Any]:
    payload = statement if isinstance(statement, dict) else statement.to_json()
    return {"statement": payload, "assertion": key.answer(sha256(canonical_json(payload)).digest())}


def terms(client: PlacetClient, enrolled: Enrolled, **changes: Any) -> ConsentStatement:
    now = int(time.time())
    values: dict[str, Any] = {
        "subject_id": enrolled.subject_id, "grantee_org": "university", "grantee_client": "res_somebody",
        "purposes": (PURPOSE_RESEARCH,), "portraits": (enrolled.portrait_sha256,), "controls": ("seed", "intensity"),
        "not_before": now, "expires_at": now + 86_400, "max_uses": 5, "epoch": client.profile()["epoch"],
        "text_version": "2026-11", "language": "de",
    }  # fmt: skip
    return ConsentStatement(**values | changes)


# -------------------------------------------------------------------------------------------------------- passkeys


def test_a_subject_enrols_with_a_passkey(server: Running, portrait: bytes) -> None:
    picture, key = altered(portrait, 2), authenticator(server)
    challenge = httpx.post(f"{server.url}/v1/subjects/challenges", files={"portrait": picture}, timeout=120).json()
    assert decode_base64url(challenge["passkey_options"]["challenge"]).hex() == challenge["nonce"]
    statement = EnrolmentStatement(
        subject_id=challenge["subject_id"], subject_class="adult", portraits=(challenge["portrait_sha256"],),
        nonce=challenge["nonce"], key_thumbprint=key_thumbprint(key.jwk), adult_attested=True, rights_basis="",
        issued_at=int(time.time()), text_version="2026-11", language="en",
    )  # fmt: skip
    form = {
        "enrolment": json.dumps(with_passkey(statement, key)),
        "registration": json.dumps(key.register(bytes.fromhex(challenge["nonce"]))),
    }
    answer = httpx.post(f"{server.url}/v1/subjects", data=form, files={"portrait": picture}, timeout=120)
    assert answer.status_code == 201, answer.text
    service, subject_id = server.service, answer.json()["subject_id"]
    entry = service.log.entry(answer.json()["log_index"])
    assert entry["body"]["signed_with"] == "passkey" and entry["body"]["text"] == "enrolment.2026-11.en"
    assert [each.credential_id for each in service.passkeys.of_account(subject_id)] == [key.credential_id]
    # the same passkey signs in, and signs consents
    options = service.passkeys.begin_assertion()
    assert service.passkeys.finish_assertion(key.answer(decode_base64url(options["challenge"]))) == subject_id
    given = service.consents.give(subject_id, with_passkey(terms_of(service, subject_id), key))
    assert given.signed.startswith('{"assertion":') and given.statement["language"] == "de"


def terms_of(service: Any, subject_id: str) -> ConsentStatement:
    subject, portraits = service.enrolment.find(subject_id)
    now = int(time.time())
    return ConsentStatement(
        subject_id, "university", "res_somebody", (PURPOSE_RESEARCH,), (portraits[0].sha256,), (), now, now + 3600, 1,
        subject.epoch, "2026-11", "de",
    )  # fmt: skip


def test_a_consent_is_drafted_signed_and_revoked_with_a_passkey(
    server: Running, mara: tuple[PlacetClient, Enrolled], passkey: Authenticator, researcher: PlacetClient
) -> None:
    client, enrolled = mara
    assert researcher.credentials is not None
    draft = post(client, "/v1/consents/drafts", {
        "grantee_org": "university", "grantee_client": researcher.credentials.client_id,
        "purposes": [PURPOSE_RESEARCH], "expires_at": "2027-01-31T00:00:00Z", "max_uses": 3, "language": "de",
    })  # fmt: skip
    assert draft["canonical"].encode() == canonical_json(draft["statement"])
    assert decode_base64url(draft["passkey_options"]["challenge"]).hex() == draft["sha256"]
    sections = {each["key"]: each["text"] for each in draft["text"]["sections"]}
    assert "a researcher" in sections["who"] and "31. Januar 2027" in sections["term"] and "3-mal" in sections["uses"]
    size = server.service.log.size
    given = post(client, "/v1/consents", with_passkey(draft["statement"], passkey))
    assert given["state"] == "live" and given["sha256"] == draft["sha256"] and "clientDataJSON" in given["signed"]
    assert given["grantee_name"] == "a researcher"
    assert server.service.log.entry(given["log_index"])["body"]["signed_with"] == "passkey"
    shown = client._json("GET", f"/v1/consents/{given['consent_id']}/text", SCOPE_SUBJECT_SELF)
    assert shown == draft["text"]
    revocation = RevocationStatement(
        enrolled.subject_id, given["sha256"], given["statement"]["epoch"], int(time.time())
    )
    revoked = post(client, f"/v1/consents/{given['consent_id']}/revocation", with_passkey(revocation, passkey))
    assert revoked["log_index"] >= size
    assert {each["consent_id"]: each["state"] for each in client.consents()}[given["consent_id"]] == "revoked"


def test_the_texts_are_public(server: Running) -> None:
    listed = httpx.get(f"{server.url}/v1/texts").json()
    assert {(each["kind"], each["language"]) for each in listed["texts"]} >= {("consent", "en"), ("consent", "de")}
    assert set(listed["purposes"]["de"]) == set(listed["purposes"]["en"])
    one = httpx.get(f"{server.url}/v1/texts/consent/2026-11/de").json()
    assert sha256(one["source"].encode()).hexdigest() == one["sha256"]
    check_problem(httpx.get(f"{server.url}/v1/texts/consent/1999-01/de"), 422, "statement.text")


def test_every_control_has_words() -> None:
    names = tuple(sorted(each.name for each in fields(MotionControls) if each.name != "head_pose_mode"))
    now = int(time.time())
    asked = ConsentStatement(
        "a", "b", "c", (PURPOSE_RESEARCH,), ("0" * 64,), names, now, now + 60, 1, 0, "2026-11", "de"
    )
    shown = next(each.text for each in shown_text(asked).sections if each.key == "controls")
    assert [line for line in shown.splitlines() if line.startswith("- ") and "(" not in line] == []


# ------------------------------------------------------------------------------------------------------- bad input


def changed(**changes: Any) -> Callable[[dict[str, Any], Authenticator], bytes]:
    """A statement with changed values, properly signed by the passkey."""

    def make(good: dict[str, Any], key: Authenticator) -> bytes:
        payload = good | changes
        try:
            challenge = sha256(canonical_json(payload)).digest()
        except Exception:  # no canonical form, so nothing that could be signed
            challenge = bytes(32)
        return json.dumps({"statement": payload, "assertion": key.answer(challenge)}).encode()

    return make


def doubled(good: dict[str, Any], key: Authenticator) -> bytes:
    text = json.dumps(with_passkey(good, key))
    return text.replace('"max_uses": 5', '"max_uses": 500, "max_uses": 5').encode()


def not_canonical(good: dict[str, Any], key: Authenticator) -> bytes:
    """The assertion answers the hash of a text that is spelt differently."""
    spelt = json.dumps(good, indent=1).encode()
    return json.dumps({"statement": good, "assertion": key.answer(sha256(spelt).digest())}).encode()


NOW = int(time.time())
BAD: dict[str, tuple[Callable[[dict[str, Any], Authenticator], bytes], int, str]] = {
    "another spelling than the canonical one": (not_canonical, 409, "passkey.challenge"),
    "a doubled key": (doubled, 400, "request.doubled_key"),
    "an unknown field of the statement": (changed(emotion="joy"), 422, "statement.malformed"),
    "an unknown field beside it": (
        lambda good, key: json.dumps({**with_passkey(good, key), "x": 1}).encode(), 400, "request.field_unknown",
    ),
    "a subject whose name only looks right": (changed(subject_id="ѕub_1"), 422, "statement.malformed"),
    "another subject": (changed(subject_id="sub_0000000000000000"), 400, "request.field_invalid"),
    "an end in the past": (changed(not_before=1, expires_at=2), 422, "statement.time"),
    "dated back": (changed(not_before=NOW - 90_000), 422, "statement.time"),
    "an end at 2**63": (changed(expires_at=2**63), 422, "statement.malformed"),
    "an end that is no whole number": (changed(expires_at=NOW + 1.5), 422, "statement.malformed"),
    "a purpose of 1 MB": (changed(purposes=["x" * 1_000_000]), 413, "request.too_large"),
    "a purpose of 20 kB": (changed(purposes=["x" * 20_000]), 422, "statement.malformed"),
    "a purpose nobody offers": (changed(purposes=["https://w3id.org/dpv#Marketing"]), 422, "statement.malformed"),
    "a text that was never shown": (changed(text_version="2020-01"), 422, "statement.text"),
    "a language without a text": (changed(language="tlh"), 422, "statement.text"),
    "a portrait of somebody else": (changed(portraits=["ab" * 32]), 400, "request.field_invalid"),
    "another epoch": (changed(epoch=7), 409, "consent.epoch"),
    "no assertion": (lambda good, key: json.dumps({"statement": good}).encode(), 422, "passkey.malformed"),
    "a JWS that is none": (lambda good, key: b'{"statement": "abc"}', 422, "statement.malformed"),
    "a list": (lambda good, key: b"[]", 415, "request.content_type"),
    "no JSON": (lambda good, key: b"{", 400, "request.malformed"),
    "deep nesting": (lambda good, key: b"[" * 20_000, 400, "request.malformed"),
    "NaN": (lambda good, key: b'{"statement": NaN}', 400, "request.malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_statement_is_refused_by_name_and_logged(
    name: str, server: Running, mara: tuple[PlacetClient, Enrolled], passkey: Authenticator
) -> None:
    client, enrolled = mara
    make, status, code = BAD[name]
    size, before = server.service.log.size, client.consents()
    response = raw(client, "/v1/consents", make(terms(client, enrolled).to_json(), passkey))
    check_problem(response, status, code)
    new = server.service.log.entries(size, 100)
    assert [entry["body"]["code"] for entry in new if entry["kind"] == "statement.refused"] == [code], new
    assert client.consents() == before


def test_the_passkey_of_somebody_else(
    server: Running, mara: tuple[PlacetClient, Enrolled], passkey: Authenticator
) -> None:
    client, enrolled = mara
    theirs, unknown, body = authenticator(server), authenticator(server), terms(client, enrolled)
    challenge = decode_base64url(server.service.passkeys.begin_registration("sub_other", "sub_other")["challenge"])
    server.service.passkeys.finish_registration("sub_other", theirs.register(challenge))
    for key, code in ((theirs, "passkey.account"), (unknown, "passkey.unknown")):
        size = server.service.log.size
        with pytest.raises(ProblemError) as caught:
            post(client, "/v1/consents", with_passkey(body, key))
        assert (caught.value.status, caught.value.code) == (403, code)
        assert server.kinds_since(size) == ["statement.refused"]
    # the right passkey under a changed answer
    signed = with_passkey(body, passkey)
    signed["assertion"]["response"]["signature"] = with_passkey(body, theirs)["assertion"]["response"]["signature"]
    with pytest.raises(ProblemError) as caught:
        post(client, "/v1/consents", signed)
    assert caught.value.code == "passkey.signature"


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_is_ten_minutes_off(
    minutes: int, server: Running, mara: tuple[PlacetClient, Enrolled], passkey: Authenticator
) -> None:
    client, enrolled = mara
    then = int(time.time()) + 60 * minutes
    erasure = {
        "type": "placet-erasure", "v": 1, "subject_id": enrolled.subject_id, "epoch": client.profile()["epoch"],
        "issued_at": then, "text_version": "2026-11", "language": "en", "record_id": secrets.token_hex(16),
    }  # fmt: skip
    size = server.service.log.size
    response = raw(client, "/v1/subjects/me", json.dumps(with_passkey(erasure, passkey)).encode(), "DELETE")
    check_problem(response, 422, "statement.time")
    assert server.kinds_since(size)[-1] == "statement.refused"
    assert client.profile()["portraits"]


def test_a_key_that_was_not_enrolled_and_a_type_that_was_not_asked_for(
    mara: tuple[PlacetClient, Enrolled],
) -> None:
    client, enrolled = mara
    assert client.credentials is not None
    good, key = terms(client, enrolled), client.credentials.key
    for token, code in (
        (sign_statement(good, new_subject_key()), "statement.signature"),
        (sign_payload(good.to_json(), "JWT", key), "statement.type"),
        (sign_payload(good.to_json() | {"v": 3}, ConsentStatement.TYP, key), "statement.malformed"),
    ):
        with pytest.raises(ProblemError) as caught:
            post(client, "/v1/consents", {"statement": token})
        assert caught.value.code == code


# ------------------------------------------------------------------------------------------------ narrowing, limits


def test_a_consent_is_narrowed(
    server: Running, mara: tuple[PlacetClient, Enrolled], operator: PlacetClient, speech: bytes
) -> None:
    client, enrolled = mara
    grantee = vetted(server, operator, "researcher")
    assert grantee.credentials is not None
    to = {"grantee_org": "university", "grantee_client": grantee.credentials.client_id}
    wide = client.consent(**to, purposes=[PURPOSE_RESEARCH, PURPOSE_EDUCATION], max_uses=4, days=2)
    render_ids = [
        delivered(server, wide, enrolled, grantee, purpose) for purpose in (PURPOSE_RESEARCH, PURPOSE_EDUCATION)
    ]
    with pytest.raises(ProblemError) as caught:  # two of four uses are left
        client.consent(**to, purposes=[PURPOSE_RESEARCH], max_uses=3, days=1, supersedes=wide["sha256"])
    assert (caught.value.status, caught.value.code) == (422, "statement.widened")
    narrow = client.consent(**to, purposes=[PURPOSE_RESEARCH], max_uses=2, days=1, supersedes=wide["sha256"])
    states = {each["consent_id"]: each["state"] for each in client.consents()}
    assert (states[wide["consent_id"]], states[narrow["consent_id"]]) == ("superseded", "live")
    # what the new one covers is given out, what it does not is withheld
    assert grantee.video(render_ids[0])
    with pytest.raises(ProblemError) as caught:
        grantee.video(render_ids[1])
    assert caught.value.code == "consent.revoked"
    # decisions look at the new one only
    request = {"subject_id": enrolled.subject_id, "portrait_sha256": enrolled.portrait_sha256, "speech": speech}
    with pytest.raises(ProblemError) as caught:
        grantee.render(**request, purpose=PURPOSE_EDUCATION)
    assert caught.value.reasons == ("consent.purpose",)
    # what is over cannot be narrowed
    with pytest.raises(ProblemError) as caught:
        client.consent(**to, purposes=[PURPOSE_RESEARCH], max_uses=1, days=1, supersedes=wide["sha256"])
    assert caught.value.code == "consent.ended"
    client.revoke(narrow["consent_id"])
    with pytest.raises(ProblemError):
        grantee.video(render_ids[0])


def delivered(server: Running, consent: dict[str, Any], enrolled: Enrolled, client: PlacetClient, purpose: str) -> str:
    """A delivery on record, without the minutes that it takes to make one."""
    service, render_id = server.service, f"ren_{secrets.token_hex(8)}"
    assert client.credentials is not None
    index = service.gate.record("delivery", {"of": "a test"}).index
    with service.database.write() as session:
        session.add(
            Render(
                render_id=render_id, client_id=client.credentials.client_id, subject_id=enrolled.subject_id,
                action="render", purpose=purpose, controls={}, portrait_sha256=enrolled.portrait_sha256,
                speech_sha256="0" * 64, speech_s=1.0, consent_id=consent["consent_id"],
                consent_epoch=consent["statement"]["epoch"], status="delivered", decision_index=index,
                delivery_index=index, mark_id=secrets.token_hex(8), created_at=time.time(),
                video_sha256=service.blobs.put(secrets.token_bytes(2000)),
            )
        )  # fmt: skip
    return render_id


def test_there_is_a_limit_to_live_consents(server: Running, mara: tuple[PlacetClient, Enrolled]) -> None:
    client, enrolled = mara
    store(server, enrolled, MAX_LIVE_CONSENTS_PER_CLIENT, grantee_client="res_full")
    size = server.service.log.size
    with pytest.raises(ProblemError) as caught:
        client.consent(grantee_org="university", grantee_client="res_full", purposes=[PURPOSE_RESEARCH])
    assert (caught.value.status, caught.value.code) == (409, "consent.too_many")
    assert server.kinds_since(size) == ["statement.refused"]


def store(server: Running, enrolled: Enrolled, number: int, *, grantee_client: str, revoked: bool = False) -> None:
    """Many consents, straight into the table."""
    now = time.time()
    statement = {
        "grantee_org": "university", "grantee_client": grantee_client, "purposes": [PURPOSE_RESEARCH],
        "portraits": [enrolled.portrait_sha256], "controls": [], "not_before": 0, "expires_at": int(now) + 9_000,
        "max_uses": 5,
    }  # fmt: skip
    with server.service.database.write() as session:
        epoch = session.get_one(Subject, enrolled.subject_id).epoch
        rows = [
            {
                "consent_id": f"con_{secrets.token_hex(8)}", "subject_id": enrolled.subject_id,
                "sha256": secrets.token_hex(32), "signed": "", "statement": statement, "grantee_org": "university",
                "grantee_client": grantee_client, "expires_at": int(now) + 9_000, "epoch": epoch, "created_at": now,
                "revoked_at": now if revoked else None, "log_index": 0,
            }
            for _ in range(number)
        ]  # fmt: skip
        session.execute(insert(Consent), rows)


def test_ten_thousand_consents_do_not_slow_a_decision(
    server: Running, mara: tuple[PlacetClient, Enrolled], researcher: PlacetClient
) -> None:
    """Counted in rows, not in seconds: what is read does not grow with what is on record."""
    enrolled = mara[1]
    store(server, enrolled, 10_000, grantee_client="res_many", revoked=True)
    store(server, enrolled, 1, grantee_client="res_many")
    assert researcher.credentials is not None
    actor = Actor(researcher.credentials.client_id, "university", frozenset({SCOPE_RENDER_CREATE}))
    request = RenderRequest.of(
        actor, subject_id=enrolled.subject_id, portrait_sha256=enrolled.portrait_sha256, speech_sha256="0" * 64,
        controls={}, purpose=PURPOSE_RESEARCH, duration_s=1.0,
    )  # fmt: skip
    loaded: list[int] = []

    def count(*_: Any) -> None:
        loaded.append(1)

    event.listen(Consent, "load", count)
    try:
        for client_id, revoked in (("res_many", False), (actor.client_id, None)):
            with server.service.database.read() as session:
                session.connection()
                asked = RenderRequest(**{**vars(request), "client_id": actor.client_id})
                if client_id == "res_many":
                    found = _candidates_for(session, asked, client_id)
                    assert [each.revoked_at for each in found] == [None]
                facts, _ = gather(session, asked, now=time.time(), max_duration_s=9.0, likeness=Likeness())
                assert revoked is None or facts.subject_class == "adult"
    finally:
        event.remove(Consent, "load", count)
    assert sum(loaded) <= 64


def _candidates_for(session: Any, request: RenderRequest, client_id: str) -> Any:
    asked = replace(request, client_id=client_id)
    return candidates(session, str(request.subject_id), asked, time.time())


# --------------------------------------------------------------------------------------------------- uses, erasure


def test_what_is_kept_can_be_taken_away_and_erased(
    server: Running, portrait: bytes, operator: PlacetClient, speech: bytes
) -> None:
    service = server.service
    client = PlacetClient(server.url)
    enrolled = client.enrol(altered(portrait, 3), subject_class="adult", adult_attested=True)
    grantee = vetted(server, operator, "researcher")
    assert grantee.credentials is not None
    to = {"grantee_org": "university", "grantee_client": grantee.credentials.client_id}
    consent = client.consent(**to, purposes=[PURPOSE_RESEARCH])
    render_id = delivered(server, consent, enrolled, grantee, PURPOSE_RESEARCH)
    request: dict[str, Any] = {
        "subject_id": enrolled.subject_id, "portrait_sha256": enrolled.portrait_sha256, "speech": speech,
        "purpose": PURPOSE_EDUCATION,
    }  # fmt: skip
    with pytest.raises(ProblemError):
        grantee.render(**request)

    # every use, with the entry that is proven and the name under which the log knows the subject
    (use,) = client.uses()
    profile = client.profile()
    assert (use["kind"], use["client_name"], use["purpose"]) == ("decision.refused", "a researcher", PURPOSE_EDUCATION)
    verify_evidence(LogEvidence.from_json(use["evidence"]), service.keys.log_public, leaf=canonical_json(use["entry"]))
    assert use["entry"]["body"]["request"]["subject_id"] == profile["pseudonym"]
    assert profile["pseudonym"] != service.keys.pseudonym("subject", enrolled.subject_id)

    # everything, in one file
    archive = zipfile.ZipFile(io.BytesIO(client.export_data()))
    names = set(archive.namelist())
    assert {"profile.json", "enrolment.txt", "uses.json", "log-key.txt"} <= names
    assert f"portraits/{enrolled.portrait_sha256}.png" in names and f"consents/{consent['consent_id']}.json" in names
    assert len(json.loads(archive.read(f"templates/{enrolled.portrait_sha256}.json"))) == 128
    kept = json.loads(archive.read(f"consents/{consent['consent_id']}.json"))
    assert kept["signed"] == consent["signed"] and "## Who may make videos of you" in kept["text"]

    # forgotten
    with service.database.read() as session:
        row = session.get_one(Subject, enrolled.subject_id)
        secrets_before = (row.wrapped_key, row.pseudonym_salt)
        blobs = set(session.scalars(select(Portrait.sealed_blob).where(Portrait.subject_id == enrolled.subject_id)))
    size = service.log.size
    erased = client.erase()
    assert erased["num_portraits"] == 1 and erased["num_videos"] == 1
    entry = service.log.entry(erased["log_index"])
    assert entry["kind"] == "subject.erased" and entry["body"]["subject"] == profile["pseudonym"]
    assert service.log.size > size

    # nothing is left of it: no row, no file, no byte of the keys in the database
    with service.database.read() as session:
        row = session.get_one(Subject, enrolled.subject_id)
        assert (row.wrapped_key, row.pseudonym_salt, row.public_jwk, row.enrolment) == (None, None, {}, "")
        for table in (Portrait, Template, Use):
            assert session.scalars(select(table).where(table.subject_id == enrolled.subject_id)).all() == []
        assert session.scalars(select(Passkey).where(Passkey.account_id == enrolled.subject_id)).all() == []
    assert not blobs & set(service.blobs.names())
    on_disk = b"".join(path.read_bytes() for path in server.settings.home.glob("placet.sqlite3*"))
    assert all(secret is not None and secret not in on_disk for secret in secrets_before)
    # the proof of what happened stays valid, and leads to nobody
    verify_evidence(service.log.evidence(use["log_index"]), service.keys.log_public)
    assert service.gate.pseudonym("subject", enrolled.subject_id) != profile["pseudonym"]
    # what was delivered is withheld, nothing new is made, the key speaks for nobody
    with pytest.raises(ProblemError) as caught:
        grantee.video(render_id)
    assert caught.value.code == "consent.revoked"
    with pytest.raises(ProblemError) as caught:
        grantee.render(**request)
    assert "subject.erased" in caught.value.reasons
    with pytest.raises(ProblemError) as caught:
        client.profile()
    assert caught.value.status == 401


def test_an_erasure_is_for_oneself_only(server: Running, mara: tuple[PlacetClient, Enrolled]) -> None:
    client, enrolled = mara
    assert client.credentials is not None
    epoch = client.profile()["epoch"]
    for statement, code in (
        (ErasureStatement("sub_somebody", epoch, int(time.time()), "2026-11", "en"), "request.field_invalid"),
        (ErasureStatement(enrolled.subject_id, epoch + 1, int(time.time()), "2026-11", "en"), "consent.epoch"),
    ):
        body = json.dumps({"statement": sign_statement(statement, client.credentials.key)}).encode()
        response = raw(client, "/v1/subjects/me", body, "DELETE")
        assert response.json()["code"] == code and response.json()["log_index"]
    assert client.profile()["portraits"]
