"""The module served as `setproctitle`: the public face of setproctitle 1.3.8, without native code.

Titles are remembered, not shown, unless AIRFLOW_SETPROCTITLE_SHIM=titles. Imported at the first
`import setproctitle`, maybe in a cold interpreter, so it imports only what is already loaded.
"""

import sys as _sys
from _thread import _local

__all__ = ["setproctitle", "getproctitle", "setthreadtitle", "getthreadtitle"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Finder  # noqa: F401  # in a comment

# Not by importing our package: pex empties sys.path and sys.modules, and files may be uninstalled
# or upgraded. So this may be an older version's finder, and nothing may be used of it that 0.9.0's
# has not: face, process_title, show(), shows_titles, thread_titles. What else a later version needs
# it puts there itself, by vars(_shim).setdefault().
_shim = vars(_sys)["_airflow_setproctitle_shim"]  # type: Finder
_thread_titles = _shim.thread_titles = _shim.thread_titles or _local()


def setproctitle(title: str) -> None:
    """Remember the title of this process; children inherit it through fork.

    Raises TypeError, ValueError and UnicodeEncodeError where the C function does.
    """
    # str.encode() checks the type, too. A function for these lines would make a call a quarter
    # slower.
    encoded = str.encode(title)
    if 0 in encoded:
        raise ValueError("embedded null character")
    _shim.process_title = encoded
    if _shim.shows_titles and _shim.show:
        _shim.show()


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


def __getattr__(name: str) -> object:
    # Only what somebody asks for costs anything (PEP 562). A docstring would cost every import.
    if name == "_setproctitle" and __name__ != "setproctitle._setproctitle":
        return __import__("setproctitle._setproctitle", fromlist=["*"])
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from importlib.metadata import version

        return version("setproctitle") or "1.3.8"
    except Exception:  # noqa: BLE001  # not installed, or broken metadata
        return "1.3.8"


_shim.face = {name: globals()[name] for name in (*__all__, "__all__", "__doc__", "__getattr__")}

if _shim.shows_titles and _shim.show:
    _shim.show()  # Prepares it: titles are often set in places where an import is unwelcome.

if _sys.flags.verbose and __name__ in ("setproctitle", "setproctitle._setproctitle"):
    print(f"airflow-setproctitle-shim: serves {__name__} from {__file__}", file=_sys.stderr)
