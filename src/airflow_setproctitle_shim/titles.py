"""Titles that `ps` shows, by processtitle. Imported by activate() in titles mode, maybe at interpreter start."""

import atexit
import sys
from _thread import allocate_lock

from . import finder
from .stderr import say

_showing = vars(finder).setdefault("showing", allocate_lock())


def show() -> None:
    """Show the newest title where `ps` looks. Never raises, and never waits.

    Who is at it already looks again when it is done. A child that was forked meanwhile shows no titles.
    """
    while finder.shown is not finder.process_title and _showing.acquire(False):
        try:
            if not finder.shows_titles:
                return
            title = finder.process_title
            if finder.set_to is None:
                _prepare()
            if title is not None:
                finder.set_to(title.decode())
            finder.shown = title
        except Exception as error:  # noqa: BLE001  # a title is never worth an exception in a worker
            _give_up(error)
        finally:
            _showing.release()


def _prepare() -> None:
    """Get processtitle ready. Raises whatever keeps it from being so."""
    if _is_subinterpreter():
        raise RuntimeError("titles are the main interpreter's")
    import logging

    import processtitle

    logger = logging.getLogger("processtitle")
    if logger.level == logging.NOTSET:  # Else every title is a DEBUG record in the user's log.
        logger.setLevel(logging.INFO)
    if not finder.prepared:  # A second time would raise.
        finder.prepared = True
        # Without fork_safe_only it would make the LaunchServices calls that crash after fork.
        processtitle.prepare(fork_safe_only=True)
    finder.set_to = processtitle.set_to


def _is_subinterpreter() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # from 3.13 on, and before
        try:
            interpreters = __import__(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False


def _give_up(error: Exception) -> None:
    """Show no more titles, and say why, in the line that sets a title."""
    finder.shows_titles = False
    text = f"AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: {type(error).__name__}: {error}"
    if sys.version_info < (3, 10):
        text += ". It needs Python 3.10"
    elif isinstance(error, (ImportError, TypeError)):  # missing, or too old
        text += ". Mend it with: pip install 'airflow-setproctitle-shim[titles]'"
    try:
        import warnings

        warnings.warn(text, RuntimeWarning, stacklevel=4)
    except Exception:  # noqa: BLE001  # python -W error, or a showwarning() of the user's that raises
        say(text)


def _stop() -> None:
    """Keep threads out of processtitle: one that finalization ends in there aborts the process."""
    finder.shows_titles = False
    # Who is in there is waited for, one second at most.
    if _showing.acquire(timeout=1):
        _showing.release()


atexit.register(_stop)
