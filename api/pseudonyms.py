"""Names of subjects and portraits in the log, from a salt per subject that erasure destroys.

`KeyRing.pseudonym` alone would let whoever holds the instance's key find every entry of a subject for ever, as long as
the subject's id is known. With a salt of 256 random bits beside the id, which is on record nowhere else, the link is
gone with the salt, also for the operator. Clients, organisations and speech keep the names that the key alone gives.
"""

from __future__ import annotations

from api.storage.database import Database
from api.storage.models import Portrait, Subject
from policy.keys import KeyRing


class SubjectPseudonyms:
    """`policy.facts.Pseudonym` over the subjects of a database."""

    def __init__(self, database: Database, keys: KeyRing) -> None:
        self._database = database
        self._keys = keys

    def __call__(self, namespace: str, value: str) -> str:
        """The name under which a value is logged now. Subjects nobody knows, or any more, get the key's name alone."""
        if namespace not in ("subject", "portrait"):
            return self._keys.pseudonym(namespace, value)
        with self._database.read() as session:
            subject_id: str | None = value
            if namespace == "portrait":
                portrait = session.get(Portrait, value)
                subject_id = None if portrait is None else portrait.subject_id
            subject = None if subject_id is None else session.get(Subject, subject_id)
        salt = None if subject is None else subject.pseudonym_salt
        return self._keys.pseudonym(namespace, value) if salt is None else salted(self._keys, namespace, value, salt)


def salted(keys: KeyRing, namespace: str, value: str, salt: bytes) -> str:
    """The name of a subject or portrait in the log: without the salt nobody can compute it, not even with all keys."""
    return keys.pseudonym(namespace, f"{salt.hex()}:{value}")
