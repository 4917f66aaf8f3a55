"""Fork-safe titles for `ps`, by processtitle. Imported at the first title, in titles mode only."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import cast

from . import finder
from .stderr import say


def show(title: str) -> None:
    """Show a title where `ps` looks. Where processtitle cannot, one RuntimeWarning says why. Never raises."""
    with finder.lock():
        # processtitle holds a mutex while it logs: a signal handler must not get to it once more.
        if finder.showing:
            return
        finder.showing = True
        try:
            finder.set_to = finder.set_to or _prepared()
            cast("Callable[[str], object]", finder.set_to)(title)
        except Exception as error:  # noqa: BLE001  # a title is never worth an exception in a worker
            finder.set_to = bool  # Takes every title from now on, and does nothing.
            if not sys.is_finalizing():
                _warn(f"AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: {type(error).__name__}: {error}")
        finally:
            finder.showing = False


def _prepared() -> Callable[[str], object]:
    """Return processtitle's set_to(), prepared; preparing it a second time would raise."""
    import processtitle

    logger = logging.getLogger("processtitle")
    if logger.level == logging.NOTSET:  # Else every title is a DEBUG record in the user's log.
        logger.setLevel(logging.INFO)
    # Without fork_safe_only it would make the LaunchServices calls that crash after fork.
    processtitle.prepare(fork_safe_only=True)
    if hasattr(os, "register_at_fork"):
        # No child may be forked while another thread has the mutex. Registered after logging's, whose
        # lock is so taken after ours, as set_to() takes it.
        os.register_at_fork(
            before=lambda: finder.lock().acquire(), after_in_parent=lambda: finder.lock().release()
        )
    return cast("Callable[[str], object]", processtitle.set_to)


def _warn(text: str) -> None:
    text += ". Mend it with: pip install 'airflow-setproctitle-shim[titles]'"
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=5)  # the caller of setproctitle()
    except RuntimeWarning:  # python -W error
        say(text)
