"""Where an instance keeps things, in a form that can be handed to an engine process; it may hold passwords."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from api.storage.blobs import Bucket


@dataclass(frozen=True)
class Addresses:
    """Of the database (a SQLite file or a URL) and of the blobs (a directory or a bucket)."""

    database: Path | str
    blobs: Path | Bucket

    def to_bytes(self) -> bytes:
        """JSON; `from_bytes` reads it."""
        return json.dumps(
            {
                "database": [str(self.database)] if isinstance(self.database, str) else str(self.database.absolute()),
                "blobs": asdict(self.blobs) if isinstance(self.blobs, Bucket) else str(self.blobs.absolute()),
            }
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Addresses:
        """What `to_bytes` wrote: a string is a path, a URL stands in a list, a bucket is an object."""
        given = json.loads(data)
        database, blobs = given["database"], given["blobs"]
        return cls(
            Path(database) if isinstance(database, str) else database[0],
            Path(blobs) if isinstance(blobs, str) else Bucket(**blobs),
        )
