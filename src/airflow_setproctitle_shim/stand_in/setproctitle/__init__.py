"""A setproctitle that dies after fork as the macOS build does. For `probe` and tests.

It is found when its parent directory is on PYTHONPATH. It sends SIGSEGV to a process that sets a
title after forking from the one that imported it (py-setproctitle #113), and to a forked one that
imports it (apache/airflow #45124), where the system tells who was forked: Linux does, in /proc.
"""

import os
import signal
import sys

__version__ = "1.3.8+stand.in"
__all__ = ["setproctitle", "getproctitle", "setthreadtitle", "getthreadtitle"]

_importer = os.getpid()
_title = " ".join(sys.argv)


def setproctitle(title: str) -> None:
    """Remember `title` in the process that imported this module; die in its forked children."""
    global _title
    if os.getpid() != _importer:
        _die()
    _title = title


def getproctitle() -> str:
    """Return the title set last, or else the command line."""
    return _title


def setthreadtitle(title: str) -> None:
    """Do nothing, as on macOS."""


def getthreadtitle() -> str:
    """Return "": macOS remembers no thread's title."""
    return ""


def _die() -> None:
    """End this process by SIGSEGV; the file that $NATIVE_CODE_LOG names gets a line before."""
    if path := os.environ.get("NATIVE_CODE_LOG"):
        with open(path, "a") as log:
            log.write(f"{os.getpid()} killed {__name__}\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def _is_forked() -> bool:
    """Return whether this process was forked and has not called exec since; False if unknown."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            # Behind the name, which may hold anything: state, five numbers, flags (proc(5)).
            flags = int(stat.read().rpartition(b")")[2].split()[6])
    except OSError:
        return False
    PF_FORKNOEXEC = 0x40  # Linux's name
    return bool(flags & PF_FORKNOEXEC)


# From 1.3.2 on the macOS build calls LaunchServices at its import.
if _is_forked():
    _die()
