"""A real PostgreSQL and a real S3-speaking server, for as long as a block lasts: the stores of a larger deployment."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg
from moto.server import ThreadedMotoServer

POSTGRESQL_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path("/usr/lib/postgresql/none/bin")]
_S3_ACCOUNT = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests", "region_name": "us-east-1"}


class Postgresql:
    """A cluster of its own. It does not run as root, so root lends it to Debian's user for it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._call("initdb", "--auth=trust", "--username=placet", "--no-sync")

    def start(self) -> None:
        """Returns when it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder} -c fsync=off -c max_connections=60"
        self._call("pg_ctl", "start", "-w", "-o", options, "-l", str(self._folder / "log"))

    def kill(self) -> None:
        """As if the power had gone."""
        self._call("pg_ctl", "stop", "-m", "immediate")

    def url(self, database: str) -> str:
        """Address of a database."""
        return f"postgresql://placet@127.0.0.1:{self.port}/{database}"

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(POSTGRESQL_BINARIES[-1] / program), "-D", str(self._folder / "data"), *arguments]
        uid = None if self._user is None else pwd.getpwnam(self._user).pw_uid
        subprocess.run(command, check=True, timeout=120, cwd=self._folder, user=uid, stdout=subprocess.DEVNULL)


class S3:
    """A server that speaks S3; what it holds outlives a stop."""

    def __init__(self) -> None:
        self._port = free_port()
        self._server: ThreadedMotoServer | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


@dataclass(frozen=True)
class Stores:
    """Both servers."""

    postgresql: Postgresql
    s3: S3

    def new(self) -> dict[str, Any]:
        """Settings that lead to a new database and a new bucket."""
        name = f"placet_{secrets.token_hex(6)}"
        with psycopg.connect(self.postgresql.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        bucket = name.replace("_", "-")
        boto3.client("s3", endpoint_url=self.s3.endpoint, **_S3_ACCOUNT).create_bucket(Bucket=bucket)
        return {
            "database": self.postgresql.url(name),
            "blobs": f"s3://{bucket}/blobs",
            "s3_endpoint": self.s3.endpoint,
            "s3_key_id": _S3_ACCOUNT["aws_access_key_id"],
            "s3_secret": _S3_ACCOUNT["aws_secret_access_key"],
        }


@contextmanager
def running_stores() -> Iterator[Stores]:
    """Start both on free ports, and stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="placet-postgresql-", ignore_cleanup_errors=True) as folder:
        stores = Stores(Postgresql(Path(folder)), S3())
        stores.postgresql.start()
        stores.s3.start()
        try:
            yield stores
        finally:
            stores.s3.stop()
            stores.postgresql.kill()


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
