"""Identifiers that may be used once, or never again. Durable, so that a restart forgets none of them."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from api.errors import ApiError
from api.storage.database import Database
from api.storage.models import SpentId


class AlreadySpentError(ApiError):
    """The identifier was used before."""

    code = "token.replayed"


class SpentIds:
    """A set of (space, value) pairs that forget themselves when nothing could present them any more."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    def spend(self, space: str, value: str, expires_at: float, *, is_durable: bool = True) -> None:
        """Use `value` up. Raises AlreadySpentError if it was used before, here or in another process.

        Args:
            is_durable: must be remembered after a loss of power too; see `Database.write`.
        """
        try:
            with self._database.write(is_durable=is_durable) as session:
                session.execute(delete(SpentId).where(SpentId.expires_at < self._now()))
                session.add(SpentId(space=space[:100], value=value[:200], expires_at=expires_at))
        except IntegrityError as exc:
            raise AlreadySpentError("This identifier was used before: make a new one for every request.") from exc

    def check(self, space: str, value: str) -> None:
        """Raises AlreadySpentError if `value` was used up or denied."""
        with self._database.read() as session:
            if session.get(SpentId, (space[:100], value[:200])) is not None:
                raise AlreadySpentError("This identifier was withdrawn or used before.")
