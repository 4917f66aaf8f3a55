"""The module served as `setproctitle`: the public face of setproctitle 1.3.8, without native code.

Titles are remembered, not shown, unless AIRFLOW_SETPROCTITLE_SHIM=titles. Imported at the first
`import setproctitle`, maybe in a cold interpreter, so it imports only what is already loaded.
"""

import airflow_setproctitle_shim as _shim

__all__ = ["setproctitle", "getproctitle", "setthreadtitle", "getthreadtitle"]


def setproctitle(title: str) -> None:
    """Remember the title of this process; children inherit it through fork.

    Raises TypeError, ValueError and UnicodeEncodeError where the C function does.
    """
    _shim.process_title = _checked(title)


def getproctitle() -> str:
    """Return the last title set, or else the command line that started this process."""
    if _shim.process_title is None:
        import sys  # Late: hardly anybody asks before a title was set.

        return " ".join(getattr(sys, "orig_argv", sys.argv))
    return _shim.process_title.decode()


def setthreadtitle(title: str) -> None:
    """Remember the title of this thread. Raises what setproctitle() raises."""
    _shim.thread_titles.title = _checked(title)


def getthreadtitle() -> str:
    """Return the last title set by this thread, or "" if there is none."""
    title: bytes = getattr(_shim.thread_titles, "title", b"")
    return title.decode()


# Comments, not docstrings, from here on: nobody asks for their help, and every import would load it.
def _checked(title: str) -> bytes:
    # UTF-8, or what C's "s" argument format raises: str.encode() is the check for the type, too.
    encoded = str.encode(title)
    if 0 in encoded:
        raise ValueError("embedded null character")
    return encoded


def __getattr__(name: str) -> str:
    # `__version__` is looked up only when somebody asks (PEP 562).
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("setproctitle")
    except PackageNotFoundError:
        return "1.3.8"


if _shim.shows_titles:
    from airflow_setproctitle_shim.titles import shown

    setproctitle = shown(setproctitle)  # type: ignore[assignment]  # the same signature, in another module
