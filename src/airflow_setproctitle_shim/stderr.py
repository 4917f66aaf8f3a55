"""Writes a line to stderr. Imported when there is something to say, maybe at interpreter start."""

import os
import sys

from . import OFF, ON, VARIABLE


def say(text: str) -> None:
    """Write a line to stderr, or nothing where that is closed, full or broken."""
    line = f"airflow-setproctitle-shim: {text}\n"
    try:
        # Past its buffer: what it cannot get rid of makes Python end with status 120.
        os.write(sys.stderr.fileno(), line.encode(errors="backslashreplace"))
    except Exception:  # noqa: BLE001  # sys.stderr may be None, or anybody's object
        return


def say_unknown(value: str) -> None:
    """Name a value of AIRFLOW_SETPROCTITLE_SHIM that is none, and what is accepted."""
    say(f"{VARIABLE}={value!r} is not one of {', '.join(ON[1:] + OFF)}; it is taken as 'auto'")
