"""Fork-safe titles for `ps`, by processtitle. Imported with setproctitle, in titles mode only."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import cast

from . import finder
from .stderr import say


def prepare() -> None:
    """Get processtitle ready, once. Where that cannot be done, a RuntimeWarning says why. Never raises."""
    with finder.lock():
        if finder.set_to is None:
            try:
                finder.set_to = _prepared()
            except Exception as error:  # noqa: BLE001  # a title is never worth an exception in a worker
                _give_up(error, 4)


def show(title: str) -> None:
    """Show a title where `ps` looks. Never raises."""
    prepare()
    with finder.lock():
        # processtitle holds a mutex while it logs: a signal handler must not get to it once more.
        if not finder.showing:
            finder.showing = True
            try:
                cast("Callable[[str], object]", finder.set_to)(title)
            except Exception as error:  # noqa: BLE001  # as above
                _give_up(error, 5)
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
        # A child would wait for the mutex for good. Registered after logging's, so that a fork takes our
        # lock before logging's, as set_to() does.
        os.register_at_fork(
            before=lambda: finder.lock().acquire(), after_in_parent=lambda: finder.lock().release()
        )
    atexit.register(_stop)
    return cast("Callable[[str], object]", processtitle.set_to)


def _stop() -> None:
    """Keep daemon threads out of processtitle: one that finalization ends in there aborts the process."""
    with finder.lock():
        finder.set_to = bool  # takes every title and does nothing


def _give_up(error: Exception, stacklevel: int) -> None:
    """Show no more titles, and say why, in the line that imports setproctitle or sets a title."""
    _stop()
    if sys.is_finalizing():
        return
    text = f"AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: {type(error).__name__}: {error}. "
    text += "Mend it with: pip install 'airflow-setproctitle-shim[titles]'"
    try:
        warnings.warn(text, RuntimeWarning, stacklevel)
    except RuntimeWarning:  # python -W error
        say(text)
