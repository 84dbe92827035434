"""Permits: short-lived, single-use, signed grants to render exactly one thing on exactly one worker.

A permit is a compact JWS (RFC 7515) with one fixed header, so there is nothing to negotiate. The gateway signs it after
the decision is in the log; the worker redeems it itself: signature, worker, time, re-hashed inputs, single use. What
comes out is a `Grant`, which nothing else can make, and without which the renderer does not run.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn, get_type_hints

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from policy.canonical import canonical_json, parse_canonical
from policy.errors import (
    CanonicalError,
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
from policy.facts import controls_sha256
from policy.kms import Retirement, SigningKey

MAX_PERMIT_LIFETIME_S: Final = 60
MAX_CLOCK_SKEW_S: Final = 5
MAX_PERMIT_NUM_BYTES: Final = 4096

_HEADER: Final = base64.urlsafe_b64encode(b'{"alg":"Ed25519","typ":"placet-permit+jws"}').rstrip(b"=").decode()
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    "permit_id": re.compile(r"[0-9a-f]{32}"),
    "action": re.compile(r"render|live|evaluate"),
    "portrait_sha256": _SHA256,
    "speech_sha256": _SHA256,
    "controls_sha256": _SHA256,
    "consent_sha256": _SHA256,
    "driving_sha256": _SHA256,
    "driver_consent_sha256": _SHA256,
    "mark_id": re.compile(r"[0-9a-f]{16}"),
    "client_id": re.compile(r".{1,200}"),
    "subject": re.compile(r".{0,200}"),
    "purpose": re.compile(r".{1,200}"),
    "worker": re.compile(r".{1,200}"),
}


@dataclass(frozen=True)
class Permit:
    """What one worker may do once.

    Args:
        permit_id: 128 random bits in hex; what the ledger remembers.
        decision_index: the log entry of the decision that this rests on.
        action: render, live or evaluate.
        subject: pseudonym of the person shown, as in the log; "" if nobody is enrolled.
        portrait_sha256, speech_sha256, controls_sha256: the inputs, exactly. What will be said in a live session is not
            known; there `speech_sha256` is the hash of the session's terms.
        consent_sha256, consent_epoch: the consent that it rests on, to be looked at again before delivery.
        driving_sha256, driver_consent_sha256: the recorded movement that moves the face instead of a planned one, and
            the consent of whoever it was recorded of; None for speech alone.
        mark_id: 64 bits in hex, the id that the invisible watermark must carry.
        worker: the name of the only worker that may redeem it.
        issued_at, expires_at: Unix seconds, at most 60 apart.
    Raises: PermitMalformedError, PermitLifetimeError.
    """

    permit_id: str
    decision_index: int
    action: str
    client_id: str
    subject: str
    portrait_sha256: str
    speech_sha256: str
    controls_sha256: str
    consent_sha256: str | None
    consent_epoch: int
    mark_id: str
    purpose: str
    worker: str
    issued_at: int
    expires_at: int
    driving_sha256: str | None = None
    driver_consent_sha256: str | None = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if hint is int:
                fits = type(value) is int and 0 <= value < 2**53
            elif value is None:
                fits = hint == str | None
            else:
                fits = isinstance(value, str) and bool(_FORMS[name].fullmatch(value))
            if not fits:
                raise PermitMalformedError(f"The field {name} of the permit does not have the form that it must have.")
        if not 0 < self.expires_at - self.issued_at <= MAX_PERMIT_LIFETIME_S:
            raise PermitLifetimeError(f"A permit lasts at most {MAX_PERMIT_LIFETIME_S} seconds; ask for a new one.")


def issue_permit(permit: Permit, key: SigningKey | ed25519.Ed25519PrivateKey) -> str:
    """The permit as a token, signed by the gateway's permit key."""
    signing_input = f"{_HEADER}.{_b64(canonical_json(asdict(permit)))}"
    return f"{signing_input}.{_b64(key.sign(signing_input.encode()))}"


_SEAL: Final = object()


class Grant:
    """The right to render one thing once, made by `PermitVerifier.redeem` and by nothing else."""

    __slots__ = ("_permit",)
    _permit: Permit

    def __init__(self, seal: object, permit: Permit) -> None:
        if seal is not _SEAL:
            raise PermitError("A grant comes only from redeeming a permit.")
        object.__setattr__(self, "_permit", permit)

    @property
    def permit(self) -> Permit:
        """What was permitted."""
        return self._permit

    def __repr__(self) -> str:
        return f"Grant(decision_index={self.permit.decision_index})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise PermitError("A grant cannot be changed.")

    def __init_subclass__(cls) -> NoReturn:
        raise PermitError("A grant cannot be imitated.")

    def __reduce__(self) -> NoReturn:
        raise PermitError("A grant cannot be copied or sent elsewhere; redeem a permit there.")


class PermitLedger:
    """The redeemed permits, in a SQLite file: a permit that was spent stays spent, also after a crash.

    It also keeps the latest time at which a permit was looked at, so that a clock set back cannot bring an expired
    permit to life. Several processes may share one file.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the ledger. Raises: PermitLedgerError."""
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS spent"
                " (permit_id TEXT PRIMARY KEY, decision_index INTEGER NOT NULL, spent_at INTEGER NOT NULL)"
                " WITHOUT ROWID"
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), latest_ms INTEGER NOT NULL)"
            )
            self._db.execute("INSERT OR IGNORE INTO clock VALUES (1, 0)")
        except sqlite3.Error as exc:
            raise _ledger_error() from exc

    def latest_s(self) -> float:
        """The latest time that this ledger has seen, Unix seconds. Raises: PermitLedgerError."""
        try:
            with self._lock:
                (latest_ms,) = self._db.execute("SELECT latest_ms FROM clock").fetchone()
        except (sqlite3.Error, TypeError) as exc:
            raise _ledger_error() from exc
        return float(latest_ms) / 1000

    def observe(self, now_s: float) -> None:
        """Remember that it is at least `now_s`, durably. Raises: PermitLedgerError."""
        self._transact(lambda: self._advance(now_s))

    def spend(self, permit: Permit, now_s: float) -> None:
        """Mark a permit as redeemed; durable when this returns.

        Raises: PermitReusedError: it was redeemed before. PermitLedgerError: it cannot be written.
        """

        def insert() -> None:
            self._db.execute(
                "INSERT INTO spent VALUES (?, ?, ?)", (permit.permit_id, permit.decision_index, int(now_s))
            )
            self._advance(now_s)

        self._transact(insert)

    def reset_clock(self) -> None:
        """Forget the latest time, for an operator who has found that it was wrong. Raises: PermitLedgerError."""
        self._transact(lambda: self._db.execute("UPDATE clock SET latest_ms = 0"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _advance(self, now_s: float) -> None:
        self._db.execute("UPDATE clock SET latest_ms = max(latest_ms, ?)", (int(now_s * 1000),))

    def _transact(self, change: Callable[[], object]) -> None:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    change()
                    self._db.execute("COMMIT")
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
            except sqlite3.IntegrityError as exc:
                raise PermitReusedError("This permit has been redeemed before; ask for a new one.") from exc
            except sqlite3.Error as exc:
                raise _ledger_error() from exc


class PermitVerifier:
    """The worker's side: turns a permit into a grant, once.

    Args:
        public_key: the gateway's permit key.
        retired: keys that it had before. What they signed counts until it must have expired, and not a second longer,
            so that a key which was stolen is worth nothing a minute after its rotation.
        worker: the name of this worker; permits for others are refused.
        ledger: the durable memory of what was redeemed.
        now: Unix time in seconds.
    """

    def __init__(
        self,
        public_key: ed25519.Ed25519PublicKey,
        worker: str,
        ledger: PermitLedger,
        now: Callable[[], float],
        *,
        retired: Sequence[Retirement] = (),
    ) -> None:
        self._public_key = public_key
        self._retired = tuple(retired)
        self._worker = worker
        self._ledger = ledger
        self._now = now

    def redeem(
        self,
        token: str,
        *,
        portrait: bytes,
        speech: bytes,
        controls: Mapping[str, Any],
        driving: bytes | None = None,
    ) -> Grant:
        """Redeem a permit for these inputs.

        The permit is spent as the last step: a mistake in the inputs does not cost it, and no grant exists before the
        ledger has it on disk.

        Raises: PermitError, by its subclasses, each with its own code.
        """
        # (1)–(4) form, header, signature, fields
        permit = self._read(token)
        # (5) made out to this worker
        if permit.worker != self._worker:
            raise PermitWorkerError("This permit is made out to another worker; take it there.")
        # (6) time; the ledger knows how late it has been, so that a clock set back does not help
        now = self._now()
        latest = self._ledger.latest_s()
        if latest - now > MAX_CLOCK_SKEW_S:
            raise PermitClockError(
                f"The worker's clock has gone back by {latest - now:.0f} seconds; set it right before going on."
            )
        now = max(now, latest)
        if permit.issued_at > now + MAX_CLOCK_SKEW_S:
            raise PermitNotYetValidError("This permit is dated in the future; set the clocks of both machines right.")
        if now >= permit.expires_at:
            self._ledger.observe(now)
            raise PermitExpiredError("This permit has expired; ask for a new one.")
        # (7) the inputs are those that were decided on
        if sha256(portrait).hexdigest() != permit.portrait_sha256:
            raise PermitPortraitError("This is not the portrait that was permitted; send the one that was decided on.")
        if sha256(speech).hexdigest() != permit.speech_sha256:
            raise PermitSpeechError("This is not the speech that was permitted; send the one that was decided on.")
        if (None if driving is None else sha256(driving).hexdigest()) != permit.driving_sha256:
            raise PermitDrivingError(
                "This is not the driving movement that was permitted; send the one that was decided on, or none."
            )
        try:
            unverified_controls_sha256 = controls_sha256(controls)
        except CanonicalError as exc:
            raise PermitControlsError("The controls have no canonical JSON form; send those decided on.") from exc
        if unverified_controls_sha256 != permit.controls_sha256:
            raise PermitControlsError("These are not the controls that were permitted; send those decided on.")
        # (8) single use, on disk before the grant exists
        self._ledger.spend(permit, now)
        return Grant(_SEAL, permit)

    def _read(self, token: str) -> Permit:
        try:
            return read_permit(token, self._public_key)
        except PermitSignatureError:
            latest = max(self._now(), self._ledger.latest_s()) if self._retired else 0.0
            for each in self._retired:
                is_recent = latest <= each.at_s + MAX_PERMIT_LIFETIME_S + MAX_CLOCK_SKEW_S
                if is_recent and isinstance(each.public_key, ed25519.Ed25519PublicKey):
                    with contextlib.suppress(PermitSignatureError):
                        return read_permit(token, each.public_key)
            raise


def read_permit(token: str, public_key: ed25519.Ed25519PublicKey) -> Permit:
    """Check form and signature of a permit. Neither time, worker, inputs nor use: that is `PermitVerifier.redeem`.

    Raises: PermitMalformedError, PermitSignatureError, PermitLifetimeError.
    """
    # (1) three parts, bounded length (RFC 7515 §3.1)
    parts = token.split(".") if len(token) <= MAX_PERMIT_NUM_BYTES else []
    # (2) exactly our header: no other algorithm, type or extension exists (RFC 8725 §3.1, §3.11)
    if len(parts) != 3 or parts[0] != _HEADER:
        raise PermitMalformedError("This is not a permit.")
    # (3) signature, RFC 8032 §5.1.7
    try:
        public_key.verify(_unb64(parts[2]), f"{parts[0]}.{parts[1]}".encode())
    except (InvalidSignature, UnicodeEncodeError) as exc:
        raise PermitSignatureError("This permit is not signed by the gateway.") from exc
    # (4) canonical payload with exactly the fields of a permit, lifetime included
    try:
        obj = parse_canonical(_unb64(parts[1]))
    except CanonicalError as exc:
        raise PermitMalformedError("The payload of the permit is not canonical JSON.") from exc
    if not isinstance(obj, dict) or set(obj) != {each.name for each in fields(Permit)}:
        raise PermitMalformedError("The permit does not have exactly the fields of a permit.")
    return Permit(**obj)


def _ledger_error() -> PermitLedgerError:
    return PermitLedgerError("The ledger of permits cannot be read or written; check the disk. Nothing is rendered.")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    """Strict base64url without padding: one spelling for each value."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise PermitMalformedError("The permit holds malformed base64url.") from exc
    if _b64(data) != text:
        raise PermitMalformedError("The permit holds base64url that is not in its one canonical spelling.")
    return data
