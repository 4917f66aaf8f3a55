"""A setproctitle that dies after fork as the macOS build does. For `probe` and tests.

It is found when its parent directory is on PYTHONPATH, and sends SIGSEGV to any process that
sets a title after forking from the one that imported it (py-setproctitle #113).
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
        os.kill(os.getpid(), signal.SIGSEGV)
    _title = title


def getproctitle() -> str:
    """Return the title set last, or else the command line."""
    return _title


def setthreadtitle(title: str) -> None:
    """Do nothing, as on macOS."""


def getthreadtitle() -> str:
    """Return "": macOS remembers no thread's title."""
    return ""
