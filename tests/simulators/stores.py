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


@dataclass(frozen=True)
class Stores:
    """Both servers, empty."""

    postgresql_port: int
    s3_endpoint: str

    def new(self) -> dict[str, Any]:
        """Settings that lead to a new database and a new bucket."""
        name = f"placet_{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        bucket = name.replace("_", "-")
        s3 = boto3.client(
            "s3",
            endpoint_url=self.s3_endpoint,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )
        s3.create_bucket(Bucket=bucket)
        return {
            "database": self.url(name),
            "blobs": f"s3://{bucket}/blobs",
            "s3_endpoint": self.s3_endpoint,
            "s3_key_id": "tests",
            "s3_secret": "tests",
        }

    def url(self, database: str) -> str:
        """Address of a database."""
        return f"postgresql://placet@127.0.0.1:{self.postgresql_port}/{database}"


@contextmanager
def running_stores() -> Iterator[Stores]:
    """Start both on free ports, and stop them at the end."""
    with running_postgresql() as port:
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        s3.start()
        try:
            yield Stores(port, "http://{}:{}".format(*s3.get_host_and_port()))
        finally:
            s3.stop()


@contextmanager
def running_postgresql() -> Iterator[int]:
    """A new cluster; yields its port. It does not run as root, so root lends it to Debian's user for it."""
    with tempfile.TemporaryDirectory(prefix="placet-postgresql-", ignore_cleanup_errors=True) as folder:
        user = "postgres" if os.getuid() == 0 else None
        if user is not None:
            shutil.chown(folder, user)
        with _cluster(Path(folder), user) as port:
            yield port


@contextmanager
def _cluster(folder: Path, user: str | None) -> Iterator[int]:
    data, port = folder / "data", free_port()

    def call(program: str, *arguments: str) -> None:
        command = [str(POSTGRESQL_BINARIES[-1] / program), "-D", str(data), *arguments]
        subprocess.run(
            command,
            check=True,
            timeout=120,
            cwd=folder,
            user=None if user is None else pwd.getpwnam(user).pw_uid,
            stdout=subprocess.DEVNULL,
        )

    call("initdb", "--auth=trust", "--username=placet", "--no-sync")
    options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c max_connections=60"
    call("pg_ctl", "start", "-w", "-o", options, "-l", str(folder / "log"))
    try:
        yield port
    finally:
        call("pg_ctl", "stop", "-m", "immediate")


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
