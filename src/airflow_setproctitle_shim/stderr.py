"""Writes a line to stderr. Imported when there is something to say, maybe at interpreter start."""

import os
import sys


def say(text: str) -> None:
    """Write a line to stderr, or nothing where that is closed, full or broken."""
    line = f"airflow-setproctitle-shim: {text}\n"
    try:
        # Past its buffer: what it cannot get rid of makes Python end with status 120.
        os.write(sys.stderr.fileno(), line.encode(errors="backslashreplace"))
    except Exception:  # noqa: BLE001  # sys.stderr may be None, or anybody's object
        return
