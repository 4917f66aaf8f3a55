"""Servers that consumers need: each on a free loopback port, with throw-away data, ended with its place."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from support.processes import free_port

from .harness import Place


def program(name: str) -> str:
    """Return where a program of the system is."""
    # Debian keeps PostgreSQL's own off PATH.
    places = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    path = shutil.which(name, path=os.pathsep.join(places))
    assert path, f"not installed on this machine: {name}"
    return path


def redis(place: Place) -> str:
    """Start Redis; return its URL."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
    place.start(program("redis-server"), *options)
    _accepts(place, port)
    return f"redis://127.0.0.1:{port}/0"


def postgresql(place: Place) -> str:
    """Start PostgreSQL; return user, host, port and database as they stand in its URLs."""
    # Not in the place's own directory: PostgreSQL refuses root, and others may not look in there.
    data = Path(tempfile.mkdtemp(prefix="postgresql-"))
    place.servers.callback(shutil.rmtree, data, ignore_errors=True)
    shutil.chown(data, "postgres")
    command = [program("initdb"), "-D", str(data), "-U", "airflow", "-A", "trust", "--no-sync"]
    subprocess.run(command, user="postgres", check=True, stdout=subprocess.DEVNULL, cwd=data)
    port = free_port()
    server = ["-D", str(data), "-p", str(port), "-k", "", "-c", "fsync=off"]
    place.start(program("postgres"), *server, user="postgres")
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "airflow"]
    # It listens before it answers.
    ready = [program("pg_isready"), "-q", "-d", "postgres", *at]
    place.until("PostgreSQL answers", lambda: subprocess.run(ready, check=False).returncode == 0)
    place.finish(program("createdb"), *at, "airflow")
    return f"airflow@127.0.0.1:{port}/airflow"


def _accepts(place: Place, port: int) -> None:
    """Wait until something listens on the port."""

    def connects() -> bool:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True

    place.until(f"a server on port {port}", connects)
