"""Passkeys on record: challenges are good once, for their account and ceremony; refusals are logged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.passkeys import PasskeyBook, relying_party
from api.storage.database import Database
from policy.decision import PolicyEngine
from policy.errors import (
    PasskeyAccountError,
    PasskeyChallengeError,
    PasskeyCounterError,
    PasskeyError,
    PasskeyMalformedError,
    PasskeyUnknownError,
)
from policy.gate import Gate
from policy.keys import KeyRing
from policy.log import Log
from policy.statement import decode_base64url
from tests.authenticator import Authenticator

START = 1_790_000_000.0


class World:
    """A book over a real database and a real log, with a clock that is set by hand."""

    def __init__(self, directory: Path) -> None:
        self.now, self.dead = START, set[str]()
        keys = KeyRing.create(directory / "keys")
        self.log = Log.create(directory / "log", keys.log_key, "placet.test/log", now=lambda: self.now)
        self.book = PasskeyBook(
            database=Database.create(directory / "placet.sqlite3"),
            gate=Gate(PolicyEngine.load(), self.log, keys, lambda: self.now),
            site=relying_party("http://127.0.0.1:8470"),
            is_live=lambda account: account not in self.dead,
            now=lambda: self.now,
            challenge_lifetime_s=300,
        )

    def register(self, account: str, key: Authenticator) -> None:
        options = self.book.begin_registration(account, account)
        self.book.finish_registration(account, key.register(challenge(options)), label="my phone")

    def sign_in(self, key: Authenticator, account: str = "") -> str:
        return self.book.finish_assertion(key.answer(challenge(self.book.begin_assertion(account))), account)

    def last(self) -> dict[str, Any]:
        return self.log.entry(self.log.size - 1)


def challenge(options: dict[str, Any]) -> bytes:
    return decode_base64url(options["challenge"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path)


def test_a_passkey_says_who_is_there(world: World) -> None:
    key = Authenticator(counts=True)
    world.register("sub_1", key)
    assert world.last()["kind"] == "passkey.registered" and "sub_1" not in str(world.last())
    assert world.sign_in(key) == "sub_1"
    assert world.sign_in(key, "sub_1") == "sub_1"
    (known,) = world.book.of_account("sub_1")
    assert known.sign_count == key.counter == 2 and known.used_at == START and known.label == "my phone"


def test_a_challenge_is_good_once_and_not_for_long(world: World) -> None:
    key = Authenticator()
    world.register("sub_1", key)
    answer = key.answer(challenge(world.book.begin_assertion()))
    world.book.finish_assertion(answer)
    refused(world, PasskeyChallengeError, lambda: world.book.finish_assertion(answer))
    late = key.answer(challenge(world.book.begin_assertion()))
    world.now += 301
    refused(world, PasskeyChallengeError, lambda: world.book.finish_assertion(late))
    invented = key.answer(bytes(32))
    refused(world, PasskeyChallengeError, lambda: world.book.finish_assertion(invented))
    for_registration = key.answer(challenge(world.book.begin_registration("sub_1", "sub_1")))
    refused(world, PasskeyChallengeError, lambda: world.book.finish_assertion(for_registration, "sub_1"))


def refused(world: World, error: type[PasskeyError], act: Any) -> None:
    size = world.log.size
    with pytest.raises(error):
        act()
    assert world.log.size == size + 1
    assert world.last()["kind"] == "passkey.refused" and world.last()["body"]["code"] == error.code


def test_the_passkey_of_somebody_else(world: World) -> None:
    mine, theirs = Authenticator(), Authenticator()
    world.register("sub_1", mine)
    world.register("sub_2", theirs)
    refused(world, PasskeyAccountError, lambda: world.sign_in(theirs, "sub_1"))
    refused(world, PasskeyUnknownError, lambda: world.sign_in(Authenticator()))
    # a challenge given to one account does not answer for another
    foreign = mine.answer(challenge(world.book.begin_assertion("sub_2")))
    refused(world, PasskeyAccountError, lambda: world.book.finish_assertion(foreign, "sub_1"))
    # one passkey, one account
    again = mine.register(challenge(world.book.begin_registration("sub_2", "sub_2")))
    refused(world, PasskeyAccountError, lambda: world.book.finish_registration("sub_2", again))
    refused(world, PasskeyMalformedError, lambda: world.book.finish_assertion({"id": 1}))


def test_a_copied_passkey_is_noticed(world: World) -> None:
    key = Authenticator(counts=True)
    world.register("sub_1", key)
    world.sign_in(key)
    key.counter = 0
    refused(world, PasskeyCounterError, lambda: world.sign_in(key))


def test_a_suspended_account(world: World) -> None:
    key = Authenticator()
    world.register("sub_1", key)
    world.dead.add("sub_1")
    refused(world, PasskeyAccountError, lambda: world.sign_in(key))


def test_removal(world: World) -> None:
    key = Authenticator()
    world.register("sub_1", key)
    with pytest.raises(PasskeyUnknownError):
        world.book.remove("sub_2", key.credential_id)
    with pytest.raises(PasskeyAccountError, match="last"):
        world.book.remove("sub_1", key.credential_id)
    world.register("sub_1", Authenticator())
    world.book.remove("sub_1", key.credential_id)
    assert world.last()["kind"] == "passkey.removed"
    refused(world, PasskeyUnknownError, lambda: world.sign_in(key))


def test_the_site_of_a_service() -> None:
    assert relying_party("http://127.0.0.1:8470").origin == "http://localhost:8470"
    assert relying_party("http://[::1]:8470").rp_id == "localhost"
    public = relying_party("https://placet.example.org")
    assert (public.rp_id, public.origin) == ("placet.example.org", "https://placet.example.org")
