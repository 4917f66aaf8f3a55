"""Serves a safe pure-Python module for every `import setproctitle` on macOS.

The startup files import this module at interpreter start, on Python >= 3.15 on every
platform. It may import only what the interpreter has loaded by then: os, sys, _thread.
"""

import sys
from _thread import RLock, _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__version__ = "1.0.0"
__all__ = ["activate", "deactivate", "is_active", "startup"]

VARIABLE = "AIRFLOW_SETPROCTITLE_SHIM"
ON = ("", "auto", "on", "1", "true", "yes", "titles")
OFF = ("off", "0", "false", "no", "disable", "disabled")

# The titles set so far live here, so that they outlast a reload or re-import of setproctitle.
process_title: "bytes | None" = None
thread_titles = _local()

# Settled by activate(), as a look at the environment would cost a twentieth of the replacement's import.
shows_titles = False

_lock = RLock()
_head, _, _tail = __file__.rpartition("__init__")
REPLACEMENT = _head + "replacement" + _tail


def startup() -> None:
    """Switch the shim on if this is macOS and AIRFLOW_SETPROCTITLE_SHIM does not say off.

    The startup files call this. An unknown value is named on stderr and counts as "auto".
    """
    # In a venv, site runs a .pth's import line twice: the second call must do nothing.
    if sys.platform != "darwin" or is_active():
        return
    value = setting()
    if value in OFF:
        return
    activate()
    if value not in ON and sys.stderr:
        sys.stderr.write(
            f"airflow-setproctitle-shim: {VARIABLE}={value!r} is not one of "
            f"{', '.join(ON[1:] + OFF)}; it is taken as 'auto'\n"
        )


def setting(variable: str = VARIABLE) -> str:
    """Return the value of an environment variable of ours in lower case, without surrounding blanks."""
    # Late: a global reference to os costs 1 % of an interpreter's whole run when modules are cleared.
    import os

    return os.environ.get(variable, "").strip().lower()


def activate() -> None:
    """Serve the replacement for `setproctitle` from now on, on any platform.

    A native setproctitle that was imported earlier is neutralised in place, see neutralise.py.
    """
    global shows_titles
    with _lock:
        if not is_active():
            shows_titles = setting() == "titles"
            sys.meta_path.insert(0, sys.modules[__name__])
        for name in ("setproctitle", "setproctitle._setproctitle"):
            module = sys.modules.get(name)
            if module is not None and not is_ours(module):
                # Late: imports wrapt, and there is hardly ever a reason to.
                from . import neutralise

                neutralise.neutralise(module)


def deactivate() -> None:
    """Undo activate() exactly: finder, served module and neutralised native module."""
    with _lock:
        if not is_active():
            return
        sys.meta_path.remove(sys.modules[__name__])
        neutralising = sys.modules.get(__name__ + ".neutralise")
        if neutralising is not None:
            neutralising.restore()
        if is_ours(sys.modules.get("setproctitle")):
            del sys.modules["setproctitle"]


def is_active() -> bool:
    """Return whether `import setproctitle` is answered by the shim."""
    return sys.modules[__name__] in sys.meta_path


def is_ours(module: object) -> bool:
    """Return whether `module` is the served replacement."""
    return getattr(getattr(module, "__spec__", None), "origin", None) == REPLACEMENT


def find_spec(
    name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
) -> "ModuleSpec | None":
    """Return the replacement's spec for "setproctitle", None for any other name.

    This makes the module itself a meta path finder (`importlib.abc.MetaPathFinder`).
    """
    if name != "setproctitle":
        return None
    loader_class: Any = type(__spec__.loader)
    if hasattr(__spec__.loader, "path"):
        loader = loader_class(name, REPLACEMENT)
    else:  # This package was imported from a zip archive.
        from .archived import ArchivedLoader

        loader = ArchivedLoader()
    # The classes are taken from this module, as importlib.machinery may not be loaded yet. With
    # an empty search path nobody gets to the native setproctitle._setproctitle.
    spec = type(__spec__)(name, loader, origin=REPLACEMENT, is_package=True)
    spec.has_location = True
    if __spec__.cached:  # importlib would work it out anew, which is 4 % of the whole import.
        head, _, tail = __spec__.cached.rpartition("__init__")
        spec.cached = head + "replacement" + tail
    if sys.flags.verbose and sys.stderr:
        sys.stderr.write(f"# airflow-setproctitle-shim serves {name} from {REPLACEMENT}\n")
    return spec
