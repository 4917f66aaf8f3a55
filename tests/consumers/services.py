"""Servers that consumers need: each on a free loopback port, with throw-away data, ended with its place."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from .harness import Place, free_port


def redis(place: Place) -> str:
    """Start Redis; return its URL."""
    port = free_port()
    place.start(
        "/usr/bin/redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--loglevel",
        "warning",
    )
    _accepts(place, port)
    return f"redis://127.0.0.1:{port}/0"


def postgresql(place: Place) -> str:
    """Start PostgreSQL; return user, host, port and database as they stand in its URLs."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    # Not in the place's own directory: PostgreSQL refuses root, and others may not look in there.
    data = Path(tempfile.mkdtemp(prefix="postgresql-"))
    place.servers.callback(shutil.rmtree, data, ignore_errors=True)
    shutil.chown(data, "postgres")
    command = [str(programs / "initdb"), "-D", str(data), "-U", "airflow", "-A", "trust", "--no-sync"]
    subprocess.run(command, user="postgres", check=True, stdout=subprocess.DEVNULL, cwd=data)
    port = free_port()
    place.start(
        f"{programs}/postgres", "-D", str(data), "-p", str(port), "-k", "", "-c", "fsync=off", user="postgres"
    )
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "airflow"]
    # It listens before it answers.
    ready = ["/usr/bin/pg_isready", "-q", "-d", "postgres", *at]
    place.until("PostgreSQL answers", lambda: subprocess.run(ready, check=False).returncode == 0)
    place.finish("/usr/bin/createdb", *at, "airflow")
    return f"airflow@127.0.0.1:{port}/airflow"


def _accepts(place: Place, port: int) -> None:
    """Wait until something listens on the port."""

    def connects() -> bool:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True

    place.until(f"a server on port {port}", connects)
