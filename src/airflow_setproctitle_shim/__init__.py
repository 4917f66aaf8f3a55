"""Serves a safe pure-Python module for every `import setproctitle` on macOS.

Imported at interpreter start: only what is loaded by then may be imported, or named in annotations.
"""

import sys
from _thread import RLock

__version__ = "0.9.0"
__all__ = ["activate", "deactivate", "is_active", "startup"]

VARIABLE = "AIRFLOW_SETPROCTITLE_SHIM"
ON = ("", "auto", "on", "1", "true", "yes", "titles")
OFF = ("off", "0", "false", "no", "disable", "disabled")
SERVED = ("setproctitle", "setproctitle._setproctitle")
REPLACEMENT = __file__.rpartition("__init__")[0] + "replacement.py"


class Finder:
    """Meta path finder (importlib.abc.MetaPathFinder), and the state that outlives our modules."""

    started = shows_titles = showing = held = False
    process_title = None  # type: bytes | None
    set_to = None  # type: object
    neutralised = []  # type: list[object]  # noqa: RUF012  # There is one instance.
    locks = {}  # type: dict[int, RLock]  # noqa: RUF012

    def __reduce__(self) -> str:
        return "finder"  # Copies of sys.meta_path hold this very object.

    def lock(self) -> RLock:
        """Return this process's own lock: a forked child must not wait for a thread that it does not have."""
        from os import getpid  # Late: a global costs 1 % of an interpreter's run when modules are cleared.

        return self.locks.setdefault(getpid(), RLock())

    def hold_across_fork(self) -> None:
        """Have forks wait for the lock's holder, as a child would wait in vain for what that thread imports."""
        import os

        if not self.held and hasattr(os, "register_at_fork"):
            self.held = True
            os.register_at_fork(
                before=lambda: self.lock().acquire(), after_in_parent=lambda: self.lock().release()
            )

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """Return the replacement's spec for setproctitle and its C module, None for any other name."""
        if name != "setproctitle" and name != "setproctitle._setproctitle":
            return None
        # importlib's own classes: other import hooks put theirs into our __spec__.
        loader = sys.modules["_frozen_importlib_external"].SourceFileLoader(name, REPLACEMENT)
        try:
            loader.path_stats(REPLACEMENT)
        except OSError:
            from .packaged import loader
        spec = sys.modules["_frozen_importlib"].ModuleSpec(name, loader, origin=REPLACEMENT)
        spec.has_location = True
        if cached := getattr(__spec__, "cached", None):  # To work it out is 4 % of the whole import.
            spec.cached = "replacement".join(cached.rsplit("__init__", 1))
        if name == "setproctitle":
            spec.submodule_search_locations = []  # Nobody finds native files through it.
        return spec


# One for each interpreter, whatever is deleted from sys.modules or put back into sys.meta_path.
finder = vars(sys).setdefault("_airflow_setproctitle_shim", Finder())  # type: Finder


def startup() -> None:
    """Activate on macOS, unless the variable says off. Never raises. The startup file calls this, maybe twice."""
    if sys.platform != "darwin" or is_active() or (value := setting()) in OFF:
        return
    finder.started = True
    try:
        activate()
        if value not in ON:
            from .stderr import say_unknown

            say_unknown(value)
    except Exception as error:  # noqa: BLE001  # Python, or Airflow, would not start
        from .stderr import say

        say(f"not switched on: {error!r}")


def setting(variable: str = VARIABLE) -> str:
    """Return the value of an environment variable of ours in lower case, without surrounding blanks."""
    import os

    return os.environ.get(variable, "").strip().lower()


def activate() -> None:
    """Serve the replacement from now on, on any platform. If this raises, nothing is switched on."""
    with finder.lock():
        if not all(is_ours(sys.modules[name]) for name in SERVED if name in sys.modules):
            finder.hold_across_fork()
            from .neutralise import neutralise  # Late: it imports wrapt, and is hardly ever needed.

            neutralise()
        if not is_active():
            finder.shows_titles = setting() == "titles"
            sys.meta_path.insert(0, finder)  # type: ignore[arg-type]  # A ModuleSpec is an object.


def deactivate() -> None:
    """Undo activate() exactly: finder, served modules and neutralised native modules."""
    with finder.lock():
        finder.hold_across_fork()
        from .undo import undo  # Late: nothing of it runs at start.

        undo()


def is_active() -> bool:
    """Return whether `import setproctitle` is answered by the shim."""
    return finder in (sys.meta_path or ())  # None while the interpreter shuts down


def is_ours(module: object) -> bool:
    """Return whether `module` is the served replacement."""
    return getattr(getattr(module, "__spec__", None), "origin", None) == REPLACEMENT
