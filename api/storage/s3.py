"""Blobs in a bucket of any S3 endpoint: content-addressed, written whole by the protocol itself.

An object appears when its upload is complete (one that breaks off leaves nothing to read), and its name is the hash of
its content, so writing twice or by two servers at once does no harm.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from api.errors import BlobMissingError, StorageError, StoreUnreachableError
from api.storage.blobs import Bucket, check_file, check_name, checked

_PATIENCE = dt.timedelta(seconds=10)

if TYPE_CHECKING:
    from obstore.store import S3Config


class S3Blobs:
    """Objects `<prefix>/<first two hex digits>/<sha256>`."""

    def __init__(self, bucket: Bucket) -> None:
        config: S3Config = {"region": bucket.region}
        if bucket.endpoint:
            config["endpoint"] = bucket.endpoint
        if bucket.key_id:
            config["access_key_id"], config["secret_access_key"] = bucket.key_id, bucket.secret
        try:
            self._store = S3Store.from_url(
                bucket.url,
                config=config,
                client_options={"allow_http": bucket.endpoint.startswith("http://"), "timeout": _PATIENCE},
                retry_config={"max_retries": 3, "retry_timeout": _PATIENCE},
            )
        except (BaseError, ValueError) as exc:
            raise StorageError("The bucket is not an address such as s3://bucket/prefix.") from exc

    def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        with _answers():
            self._store.put(_key(sha256), data)
        return sha256

    def adopt(self, source: Path, sha256: str) -> None:
        """By an upload; the file is removed when the bucket has it."""
        check_file(source, sha256)
        with _answers():
            self._store.put(_key(sha256), source)
        source.unlink()

    def get(self, sha256: str) -> bytes:
        with _answers():
            return checked(bytes(self._store.get(_key(sha256)).bytes()), sha256)

    def num_bytes(self, sha256: str) -> int:
        with _answers():
            return int(self._store.head(_key(sha256))["size"])

    def read(self, sha256: str, first: int, num_bytes: int) -> bytes:
        if num_bytes <= 0:
            return b""
        with _answers():
            return bytes(self._store.get_range(_key(sha256), start=first, length=num_bytes))

    def remove(self, sha256: str) -> None:
        """In a bucket that keeps versions the older ones stay: see `docs/deploy.md`."""
        with _answers():
            self._store.delete(_key(sha256))

    def names(self, *, older_than_s: float = 0.0) -> Iterator[str]:
        limit = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=older_than_s)
        with _answers():
            for page in self._store.list():
                for each in page:
                    name = str(each["path"]).rpartition("/")[2]
                    if len(name) == hashlib.sha256().digest_size * 2 and each["last_modified"] <= limit:
                        yield name

    def sweep_partial(self, *, older_than_s: float = 0.0) -> int:
        """Nothing to do: uploads that broke off are never seen; the bucket's own lifecycle rule forgets them."""
        return 0


def _key(sha256: str) -> str:
    return f"{check_name(sha256)[:2]}/{sha256}"


@contextmanager
def _answers() -> Iterator[None]:
    """Errors of the bucket as ours."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as exc:
        raise BlobMissingError("The stored file is gone.") from exc
    except BaseError as exc:
        raise StoreUnreachableError() from exc
