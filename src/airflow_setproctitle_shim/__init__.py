"""Serves a safe pure-Python module for every `import setproctitle` on macOS.

Imported at interpreter start: only what is loaded by then may be imported, or named in annotations.
"""

import sys

__version__ = "0.9.0"
__all__ = ["activate", "deactivate", "is_active", "startup"]

VARIABLE = "AIRFLOW_SETPROCTITLE_SHIM"
ON = ("", "auto", "on", "1", "true", "yes", "titles")
OFF = ("off", "0", "false", "no", "disable", "disabled")
SERVED = ("setproctitle", "setproctitle._setproctitle")
REPLACEMENT = __file__.rpartition("__init__")[0] + "replacement.py"

# The import system itself: other import hooks put their own loaders into our __spec__.
_importlib = sys.modules["_frozen_importlib_external"]


def startup() -> None:
    """Activate on macOS, unless the variable says off. Never raises. The startup file calls this, maybe twice."""
    try:
        if sys.platform != "darwin" or is_active() or (value := setting()) in OFF:
            return
        finder.started = True
        activate()
        if value not in ON:
            from .stderr import say

            say(
                f"{VARIABLE}={value!r} is not one of {', '.join(ON[1:] + OFF)}; it is taken as 'auto'"
            )
    except Exception as error:  # noqa: BLE001  # Python, or Airflow, would not start
        try:
            from .stderr import say

            say(f"not switched on: {error!r}")
        except Exception:  # noqa: BLE001  # as above: the stack may have no room left
            return


def setting(variable: str = VARIABLE) -> str:
    """Return the value of an environment variable of ours in lower case, without surrounding blanks."""
    import os  # Late: a global costs 1 % of an interpreter's run when modules are cleared.

    return os.environ.get(variable, "").strip().lower()


def activate() -> None:
    """Serve the replacement from now on, on any platform. If this raises, nothing is switched on."""
    was_active = is_active()
    try:
        if not was_active:
            if titles := setting() == "titles":
                from .titles import show

                finder.show = show
            finder.shows_titles = titles
            sys.meta_path[:] = [finder, *_other_finders()]
        # Another thread may be importing a native module that it found before our finder was there. It is waited
        # for, and only then: a child forked while we hold the module's lock would wait for good.
        if "setproctitle" in getattr(_importlib._bootstrap, "_module_locks", ()):
            _importlib._bootstrap._lock_unlock_module("setproctitle")
        if finder.wrappers or any(one and not is_ours(one) for one in map(sys.modules.get, SERVED)):
            from .neutralise import sync  # Late: it imports wrapt, and is hardly ever needed.

            finder.sync = sync
            sync()
    except BaseException:
        if not was_active:
            deactivate()
        raise


def deactivate() -> None:
    """Undo activate() exactly: finder, served modules and neutralised native modules."""
    sys.meta_path[:] = _other_finders()
    if finder.wrappers:
        finder.sync()
    for name in SERVED:
        module = sys.modules.get(name)
        # py-setproctitle's Python layer over our functions is ours too.
        if is_ours(module) or is_ours(getattr(module, "_setproctitle", None)):
            sys.modules.pop(name, None)


def is_active() -> bool:
    """Return whether `import setproctitle` is answered by the shim."""
    return any(
        one is finder for one in list(sys.meta_path or ())
    )  # None while the interpreter shuts down


def is_ours(module: object) -> bool:
    """Return whether `module` is the served replacement."""
    return bool(getattr(getattr(module, "__spec__", None), "origin", None) == finder.origin)


def _other_finders() -> list:  # type: ignore[type-arg]
    # A copy, as other threads may switch meanwhile; and not by ==, which may raise.
    return [one for one in list(sys.meta_path) if one is not finder]


class Finder:
    """Meta path finder (importlib.abc.MetaPathFinder), loader where there is no file, and all our state."""

    origin = REPLACEMENT
    started = shows_titles = prepared = False
    process_title = set_to = None
    face = {}  # type: dict[str, object]  # noqa: RUF012  # There is one instance.
    shown = b""  # none yet, not even none
    wrappers = {}  # type: dict[int, object]  # noqa: RUF012  # as above

    def __reduce__(self) -> str:
        return "finder"  # Copies of sys.meta_path hold this very object.

    @staticmethod  # A method would be bound at every import of anything.
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """Return the replacement's spec for setproctitle and its C module, None for any other name."""
        if name != "setproctitle" and name != "setproctitle._setproctitle":
            return None
        if target is not None and not is_ours(target):
            return (
                None  # The native module is reloaded, over functions that are neutralised already.
            )
        loader = _importlib.SourceFileLoader(name, finder.origin)
        try:
            loader.path_stats(finder.origin)
        except OSError:  # in an archive or a packaged program, or uninstalled since
            loader = finder
        spec = _importlib.spec_from_file_location(
            name, finder.origin, loader=loader, submodule_search_locations=None
        )
        if name == "setproctitle":
            spec.submodule_search_locations = []  # Nobody finds native files through it.
        return spec

    def create_module(self, spec: object) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: object) -> None:
        """Give a module the replacement's names, as served before or as anything else is imported here."""
        if not self.face:
            from . import replacement  # noqa: F401  # sets it
        vars(module).update(self.face)


# One for each interpreter, whatever is deleted from sys.modules or put back into sys.meta_path.
finder = vars(sys).setdefault("_airflow_setproctitle_shim", Finder())
