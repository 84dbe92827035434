"""Permits: what a worker accepts once, and everything that it does not."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import sqlite3
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from policy.canonical import canonical_json
from policy.consent import PURPOSE_RESEARCH
from policy.decision import controls_sha256
from policy.errors import (
    PermitClockError,
    PermitControlsError,
    PermitDrivingError,
    PermitError,
    PermitExpiredError,
    PermitLedgerError,
    PermitLifetimeError,
    PermitMalformedError,
    PermitNotYetValidError,
    PermitPortraitError,
    PermitReusedError,
    PermitSignatureError,
    PermitSpeechError,
    PermitWorkerError,
)
from policy.keys import KeyRing, public_key_bytes
from policy.permit import Grant, Permit, PermitLedger, PermitVerifier, issue_permit, read_permit

from .conftest import CONTROLS, PORTRAIT, SPEECH, START, Clock, hex_of

INPUTS: dict[str, Any] = {"portrait": PORTRAIT, "speech": SPEECH, "controls": CONTROLS}
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))


def permit(number: int = 1, **changes: Any) -> Permit:
    values: dict[str, Any] = {
        "permit_id": f"{number:032x}", "decision_index": 3, "action": "render", "client_id": "client-1",
        "subject": "subject:" + "0" * 32, "portrait_sha256": hex_of(PORTRAIT), "speech_sha256": hex_of(SPEECH),
        "controls_sha256": controls_sha256(CONTROLS), "consent_sha256": "c" * 64, "consent_epoch": 0,
        "mark_id": "0123456789abcdef", "purpose": PURPOSE_RESEARCH, "worker": "worker-1", "issued_at": START,
        "expires_at": START + 60,
    }  # fmt: skip
    return Permit(**values | changes)


def token_of(payload: Any, header: bytes = b'{"alg":"Ed25519","typ":"placet-permit+jws"}') -> str:
    """Any payload under any header, validly signed."""
    parts = [header, payload if isinstance(payload, bytes) else canonical_json(payload)]
    signing_input = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    signature = base64.urlsafe_b64encode(KEY.sign(signing_input.encode())).rstrip(b"=").decode()
    return f"{signing_input}.{signature}"


@pytest.fixture
def ledger(tmp_path: Path) -> PermitLedger:
    return PermitLedger(tmp_path / "permits.sqlite3")


@pytest.fixture
def verifier(ledger: PermitLedger, clock: Clock) -> PermitVerifier:
    return PermitVerifier(KEY.public_key(), "worker-1", ledger, clock)


def test_a_permit_is_redeemed_once(verifier: PermitVerifier) -> None:
    token = issue_permit(permit(), KEY)
    assert token == token_of(asdict(permit())), "the token is an ordinary JWS"
    grant = verifier.redeem(token, **INPUTS)
    assert grant.permit == permit()
    with pytest.raises(PermitReusedError):
        verifier.redeem(token, **INPUTS)


def test_other_inputs_are_refused_and_do_not_spend_the_permit(verifier: PermitVerifier) -> None:
    token = issue_permit(permit(), KEY)
    for error, change in (
        (PermitPortraitError, {"portrait": b"another"}),
        (PermitPortraitError, {"portrait": PORTRAIT + b"\0"}),
        (PermitSpeechError, {"speech": b""}),
        (PermitControlsError, {"controls": {}}),
        (PermitControlsError, {"controls": CONTROLS | {"seed": 8}}),
        (PermitControlsError, {"controls": CONTROLS | {"emotion": "joy"}}),
        (PermitControlsError, {"controls": {"seed": float("nan")}}),
    ):
        with pytest.raises(error):
            verifier.redeem(token, **INPUTS | change)
    verifier.redeem(token, **INPUTS)


def test_another_worker(ledger: PermitLedger, clock: Clock) -> None:
    token = issue_permit(permit(), KEY)
    with pytest.raises(PermitWorkerError):
        PermitVerifier(KEY.public_key(), "worker-2", ledger, clock).redeem(token, **INPUTS)


def test_another_gateway(ledger: PermitLedger, clock: Clock, keys: KeyRing) -> None:
    with pytest.raises(PermitSignatureError):
        PermitVerifier(keys.permit_public, "worker-1", ledger, clock).redeem(issue_permit(permit(), KEY), **INPUTS)


@pytest.mark.parametrize(
    ("at", "error"),
    [(59.9, None), (60, PermitExpiredError), (1e9, PermitExpiredError), (-5, None), (-6, PermitNotYetValidError)],
)
def test_time(verifier: PermitVerifier, clock: Clock, at: float, error: type[PermitError] | None) -> None:
    clock.now = START + at
    token = issue_permit(permit(), KEY)
    if error is None:
        verifier.redeem(token, **INPUTS)
    else:
        with pytest.raises(error):
            verifier.redeem(token, **INPUTS)


def test_a_clock_set_back_brings_nothing_to_life(verifier: PermitVerifier, ledger: PermitLedger, clock: Clock) -> None:
    unused, later = (
        issue_permit(permit(1), KEY),
        issue_permit(permit(2, issued_at=START + 90, expires_at=START + 150), KEY),
    )
    clock.now = START + 100
    with pytest.raises(PermitExpiredError):
        verifier.redeem(unused, **INPUTS)
    clock.now = START + 30  # far back: nothing is redeemed until somebody looks
    for token in (unused, later):
        with pytest.raises(PermitClockError, match="70 seconds"):
            verifier.redeem(token, **INPUTS)
    clock.now = START + 97  # a little back: time stands still
    with pytest.raises(PermitExpiredError):
        verifier.redeem(unused, **INPUTS)
    verifier.redeem(later, **INPUTS)
    clock.now = START + 95
    with pytest.raises(PermitReusedError):
        verifier.redeem(later, **INPUTS)
    ledger.reset_clock()
    assert ledger.latest_s() == 0


def test_the_ledger_outlives_the_process(tmp_path: Path, clock: Clock) -> None:
    path, token = tmp_path / "permits.sqlite3", issue_permit(permit(), KEY)
    first = PermitLedger(path)
    PermitVerifier(KEY.public_key(), "worker-1", first, clock).redeem(token, **INPUTS)
    first.close()
    with pytest.raises(PermitReusedError):
        PermitVerifier(KEY.public_key(), "worker-1", PermitLedger(path), clock).redeem(token, **INPUTS)


REDEEMER = """
import os, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric import ed25519
from policy.permit import PermitLedger, PermitVerifier
key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(sys.argv[2]))
verifier = PermitVerifier(key, "worker-1", PermitLedger(Path(sys.argv[1])), lambda: float(sys.argv[4]))
verifier.redeem(sys.argv[3], portrait=b"a portrait", speech=b"a speech track", controls={"seed": 7, "intensity": 0.5})
os.kill(os.getpid(), 9)
"""


def test_killed_right_after_redeeming(tmp_path: Path, verifier: PermitVerifier) -> None:
    token = issue_permit(permit(), KEY)
    arguments = [tmp_path / "permits.sqlite3", public_key_bytes(KEY.public_key()).hex(), token, str(START)]
    child = subprocess.run([sys.executable, "-c", REDEEMER, *arguments], check=False)
    assert child.returncode == -9
    with pytest.raises(PermitReusedError):
        verifier.redeem(token, **INPUTS)


def test_a_race_has_one_winner(tmp_path: Path, clock: Clock) -> None:
    """Sixteen threads over two ledgers on one file, as two processes would be."""
    ledgers = [PermitLedger(tmp_path / "permits.sqlite3") for _ in range(2)]
    token = issue_permit(permit(), KEY)
    outcomes: list[object] = []
    barrier = threading.Barrier(16)

    def work(number: int) -> None:
        verifier = PermitVerifier(KEY.public_key(), "worker-1", ledgers[number % 2], clock)
        barrier.wait()
        try:
            outcomes.append(verifier.redeem(token, **INPUTS))
        except PermitReusedError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, Grant) for outcome in outcomes) == 1 and len(outcomes) == 16


def test_no_ledger_no_grant(verifier: PermitVerifier, ledger: PermitLedger, tmp_path: Path) -> None:
    ledger.close()
    with pytest.raises(PermitLedgerError):
        verifier.redeem(issue_permit(permit(), KEY), **INPUTS)
    with pytest.raises(PermitLedgerError):
        PermitLedger(tmp_path / "no/such/file")
    (tmp_path / "garbage").write_bytes(b"this is not a database" * 100)
    with pytest.raises(PermitLedgerError):
        PermitLedger(tmp_path / "garbage")


def test_a_ledger_that_cannot_be_written(verifier: PermitVerifier, ledger: PermitLedger) -> None:
    ledger._db.execute("PRAGMA query_only=1")
    with pytest.raises(PermitLedgerError):
        verifier.redeem(issue_permit(permit(), KEY), **INPUTS)
    ledger._db.execute("PRAGMA query_only=0")
    verifier.redeem(issue_permit(permit(), KEY), **INPUTS)


# ---------------------------------------------------------------------------------------------------------------- form


TOKEN = issue_permit(permit(), KEY)


def test_every_flipped_bit_is_refused() -> None:
    data = TOKEN.encode()
    for at in range(len(data)):
        for bit in range(7):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(PermitError):
                read_permit(changed.decode(), KEY.public_key())


@given(st.text(max_size=300))
def test_the_parser_raises_only_our_errors(text: str) -> None:
    for token in (text, TOKEN.split(".")[0] + "." + text, TOKEN.rsplit(".", 1)[0] + "." + text):
        with pytest.raises(PermitError):
            read_permit(token, KEY.public_key())


@pytest.mark.parametrize(
    "header",
    [b'{"alg":"none","typ":"placet-permit+jws"}', b'{"alg":"HS256","typ":"placet-permit+jws"}', b'{"alg":"Ed25519"}',
     b'{"alg":"Ed25519","typ":"JWT"}', b'{"typ":"placet-permit+jws","alg":"Ed25519"}', b"{}", b"",
     b'{"alg":"Ed25519","typ":"placet-permit+jws","jku":"https://attacker.test"}'],
)  # fmt: skip
def test_other_headers_are_refused_even_if_signed(header: bytes) -> None:
    with pytest.raises(PermitMalformedError):
        read_permit(token_of(asdict(permit()), header), KEY.public_key())


GOOD = asdict(permit())


@pytest.mark.parametrize(
    "payload",
    [json.dumps(GOOD).encode(), b"[]", b"{}", GOOD | {"more": 1}, {k: v for k, v in GOOD.items() if k != "worker"},
     GOOD | {"permit_id": "x"}, GOOD | {"decision_index": -1}, GOOD | {"decision_index": True}, GOOD | {"action": "x"},
     GOOD | {"mark_id": "0"}, GOOD | {"portrait_sha256": None}, GOOD | {"issued_at": 1.5}, GOOD | {"worker": ""},
     GOOD | {"controls_sha256": "A" * 64}, GOOD | {"consent_sha256": 1}],
)  # fmt: skip
def test_other_payloads_are_refused_even_if_signed(payload: Any) -> None:
    with pytest.raises(PermitMalformedError):
        read_permit(token_of(payload), KEY.public_key())


@pytest.mark.parametrize("expires_at", [START + 61, START, START - 1, 2**52])
def test_a_long_life_is_refused_on_both_sides(expires_at: int) -> None:
    with pytest.raises(PermitLifetimeError):
        permit(expires_at=expires_at)
    with pytest.raises(PermitLifetimeError):
        read_permit(token_of(GOOD | {"expires_at": expires_at}), KEY.public_key())


def test_a_permit_without_consent() -> None:
    evaluation = permit(action="evaluate", consent_sha256=None, subject="")
    assert read_permit(issue_permit(evaluation, KEY), KEY.public_key()) == evaluation


# --------------------------------------------------------------------------------------------------------------- grant


def test_a_grant_cannot_be_made_changed_copied_or_imitated(verifier: PermitVerifier) -> None:
    grant = verifier.redeem(TOKEN, **INPUTS)
    with pytest.raises(PermitError):
        Grant(object(), permit())
    with pytest.raises(TypeError):
        Grant()  # type: ignore[call-arg]
    with pytest.raises(PermitError):
        grant._permit = replace(permit(), worker="worker-2")
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(PermitError):
            copier(grant)
    with pytest.raises(PermitError):
        type("Imitation", (Grant,), {})
    assert repr(grant) == "Grant(decision_index=3)"


def test_the_ledger_keeps_nothing_personal(verifier: PermitVerifier, ledger: PermitLedger, tmp_path: Path) -> None:
    verifier.redeem(TOKEN, **INPUTS)
    rows = sqlite3.connect(tmp_path / "permits.sqlite3").execute("SELECT * FROM spent").fetchall()
    assert rows == [(f"{1:032x}", 3, START)]


def test_a_driving_movement_is_part_of_what_was_permitted(verifier: PermitVerifier) -> None:
    driven = permit(driving_sha256=hex_of(b"a movement"), driver_consent_sha256="d" * 64)
    token = issue_permit(driven, KEY)
    for other in (None, b"", b"another movement"):
        with pytest.raises(PermitDrivingError):
            verifier.redeem(token, **INPUTS, driving=other)
    assert verifier.redeem(token, **INPUTS, driving=b"a movement").permit == driven
    with pytest.raises(PermitDrivingError):
        verifier.redeem(issue_permit(permit(2), KEY), **INPUTS, driving=b"a movement")
