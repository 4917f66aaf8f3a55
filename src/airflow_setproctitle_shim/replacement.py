"""The module served as `setproctitle`: the public face of setproctitle 1.3.8, without native code.

Titles are remembered, not shown, unless AIRFLOW_SETPROCTITLE_SHIM=titles. Imported at the first
`import setproctitle`, maybe in a cold interpreter, so it imports only what is already loaded.
"""

import sys as _sys
from _thread import _local

from airflow_setproctitle_shim import finder as _shim

__all__ = ["setproctitle", "getproctitle", "setthreadtitle", "getthreadtitle"]

_thread_titles = vars(_shim).setdefault("thread_titles", _local())


def setproctitle(title: str) -> None:
    """Remember the title of this process; children inherit it through fork.

    Raises TypeError, ValueError and UnicodeEncodeError where the C function does.
    """
    # str.encode() checks the type, too. A function for these lines would make a call a quarter slower.
    encoded = str.encode(title)
    if 0 in encoded:
        raise ValueError("embedded null character")
    _shim.process_title = encoded
    if _shim.shows_titles:
        _show(title)


def getproctitle() -> str:
    """Return the last title set, or else the command line that started this process."""
    if _shim.process_title is None:
        return " ".join(getattr(_sys, "orig_argv", _sys.argv))
    return _shim.process_title.decode()


def setthreadtitle(title: str) -> None:
    """Remember the title of this thread. Raises what setproctitle() raises."""
    encoded = str.encode(title)
    if 0 in encoded:
        raise ValueError("embedded null character")
    _thread_titles.title = encoded


def getthreadtitle() -> str:
    """Return the last title set by this thread, or "" if there is none."""
    title: bytes = getattr(_thread_titles, "title", b"")
    return title.decode()


def _show(title: str) -> None:
    try:
        from airflow_setproctitle_shim.titles import show
    except ImportError:  # The interpreter shuts down.
        return
    show(title)


def __getattr__(name: str) -> str:
    # `__version__` is looked up only when somebody asks (PEP 562). No docstring: every import would load it.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("setproctitle")
    except PackageNotFoundError:
        return "1.3.8"


if _shim.shows_titles:
    # Now: a child that is forked while another thread imports it at a title would wait for good.
    from airflow_setproctitle_shim.titles import prepare

    prepare()

if _sys.flags.verbose and __name__ != f"{__package__}.replacement":
    from airflow_setproctitle_shim.stderr import say

    say(f"serves {__name__} from {__file__}")
