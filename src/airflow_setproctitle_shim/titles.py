"""Titles that `ps` shows, by processtitle.

Imported by activate() in titles mode, maybe at interpreter start.
"""

import atexit
import sys
from _thread import get_ident

from . import finder
from .seldom import lives_in
from .stderr import say

# How processtitle fails. Its code is C++, so an error of it has no frame of its own.
FAILURES = (ImportError, OSError, RuntimeError, TypeError, UnicodeError)


def show() -> None:
    """Show the newest title where `ps` looks. Never waits, and raises only what is not ours.

    Who is at it already looks again when it is done. A child that was forked meanwhile shows no
    titles.
    """
    turn = [get_ident()]  # a list, because each call has its own
    while not finder.set_to or finder.shown is not finder.process_title:
        try:
            if finder.turn.setdefault("of", turn) is not turn or not finder.shows_titles:
                return
            title = finder.process_title
            if not finder.set_to:
                _prepare()
            if title is not None and finder.set_to:
                finder.set_to(title.decode())
            finder.shown = title
        except Exception as error:
            if not _is_processtitles(error):
                raise
            _give_up(error)
        finally:
            # No call stands here but in C, so that no signal handler's exception comes between.
            if "of" in finder.turn and finder.turn["of"] is turn:
                del finder.turn["of"]


def _prepare() -> None:
    """Get processtitle ready. Raises whatever keeps it from being so."""
    if _is_subinterpreter():
        raise RuntimeError("titles are the main interpreter's")
    import logging

    from processtitle import prepare, set_to

    logger = logging.getLogger("processtitle")
    if logger.level == logging.NOTSET:  # Else every title is a DEBUG record in the user's log.
        logger.setLevel(logging.INFO)
    # First, as a signal handler may raise right after prepare(), which raises a second time.
    finder.set_to = set_to
    # Without fork_safe_only it would make the LaunchServices calls that crash after fork.
    prepare(fork_safe_only=True)


def _is_subinterpreter() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # from 3.13 on, and before
        try:
            interpreters = __import__(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False


def _is_processtitles(error: Exception) -> bool:
    """Return whether processtitle failed. Else a signal handler ran, and what it raised passes."""
    raised_in = _modules_in(error)[-1]
    if raised_in == __name__:
        return isinstance(error, FAILURES)
    return isinstance(error, ImportError) or raised_in.partition(".")[0] == "processtitle"


def _modules_in(error: Exception) -> "list[str]":
    """Return the names of the modules whose functions an error came through, its own the last."""
    names, trace = [], error.__traceback__
    while trace:
        names.append(str(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    return names


def _give_up(error: Exception) -> None:
    """Show no more titles, and say why, in the line that sets a title."""
    finder.shows_titles = False
    text = f"AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: {type(error).__name__}: {error}"
    if sys.version_info < (3, 10):
        text += ". It needs Python 3.10"
    elif isinstance(error, (ImportError, TypeError)):  # missing, or too old
        text += ". Mend it with: pip install 'processtitle>=1.3'"
    try:
        import warnings

        warnings.warn(text, RuntimeWarning, stacklevel=4)
    except Exception as raised:
        # python -W error, or a showwarning() of the user's that raises
        # Python 3.14 has another name for the module.
        through = {"warnings", "_py_warnings"}.intersection(_modules_in(raised))
        if not isinstance(raised, RuntimeWarning) and not through:
            raise  # a signal handler's
        say(text)


def _stop() -> None:
    """Keep threads out of processtitle: one that finalization ends in there aborts the process.

    Whoever is in there is waited for, one second at most.
    """
    import time

    finder.shows_titles = False
    deadline = time.monotonic() + 1
    while (turn := finder.turn.get("of")) and lives_in(turn[0], globals()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)


atexit.register(_stop)
