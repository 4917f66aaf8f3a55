"""Serves a safe pure-Python module for every `import setproctitle` on macOS.

Imported at interpreter start: only what is loaded by then may be imported, or named in annotations.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # Only comments name them, as some tools resolve annotations at run time.
    from _thread import _local  # noqa: F401
    from collections.abc import Callable  # noqa: F401

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
    """Activate on macOS, unless the variable says off. Never raises.

    The startup file calls this, maybe twice.
    """
    try:
        if sys.platform != "darwin" or is_active() or (value := setting()) in OFF:
            return
        finder.started = True
        activate()
        if value not in ON:
            from .stderr import say

            accepted = ", ".join(ON[1:] + OFF)
            say(f"{VARIABLE}={value!r} is not one of {accepted}; it is taken as 'auto'")
    except Exception as error:  # noqa: BLE001  # Python, or Airflow, would not start
        try:
            from .stderr import say

            say(f"not switched on: {error!r}")
        except Exception:  # noqa: BLE001  # as above: the stack may have no room left
            return


def setting(variable: str = VARIABLE) -> str:
    """Return an environment variable of ours in lower case, without surrounding blanks."""
    import os  # Late: a global costs 1 % of an interpreter's run when modules are cleared.

    return os.environ.get(variable, "").strip().lower()


def activate() -> None:
    """Serve the replacement from now on, on any platform. If it raises, nothing is switched on."""
    was_active = is_active()
    try:
        if not was_active:
            finder.shows_titles = setting() == "titles"
            if finder.shows_titles:
                from .titles import show

                finder.show = show
            if not finder.origin.startswith("/"):
                # A relative archive is not found any more after os.chdir(). (On Windows this costs
                # an import.)
                from . import replacement, seldom  # noqa: F401
            # insert() loses no finder that another thread inserts, as a new list would.
            sys.meta_path.insert(0, finder)  # type: ignore[arg-type]  # find_spec() says `object`
        if "setproctitle" in getattr(_importlib._bootstrap, "_module_locks", ()):
            from .seldom import wait_for_an_import

            wait_for_an_import("setproctitle")
        if finder.wrappers or any(map(_is_native, SERVED)):
            from .neutralise import sync  # Late: it imports wrapt, and is hardly ever needed.

            finder.sync = sync
            sync()
    except BaseException:
        if not was_active:
            deactivate()
        raise


def deactivate() -> None:
    """Undo activate() exactly: finder, served modules and neutralised native modules.

    A finder that another thread inserts at this very moment may be lost.
    """
    # In a new list: before Python 3.14 an import that another thread is running goes over the list
    # itself, and would skip a finder if one were deleted there (python/cpython #130094). The price
    # is that `sys.meta_path.insert(0, made())` in another thread may go to the old list.
    while is_active():
        finders = vars(sys)["meta_path"]
        for index, one in enumerate(finders):
            # From Python 3.10 on threads are switched at calls and when a loop begins anew, so not
            # between these lines.
            if one is finder and sys.meta_path is finders:
                sys.meta_path = finders[:index] + finders[index + 1 :]
    if finder.sync:
        finder.sync()
    for name in SERVED:
        module = sys.modules.get(name)
        # py-setproctitle's Python layer over our functions is ours too.
        if is_ours(module) or is_ours(attributes(module).get("_setproctitle")):
            sys.modules.pop(name, None)


def is_active() -> bool:
    """Return whether `import setproctitle` is answered by the shim."""
    # A copy, as other threads may change it; and it is None while the interpreter shuts down.
    finders: list[object] = list(sys.meta_path or ())
    for one in finders:  # noqa: SIM110  # A generator would cost more at each start.
        if one is finder:  # not by ==, which may raise
            return True
    return False


def is_ours(module: object) -> bool:
    """Return whether `module` is the served replacement."""
    return attributes(attributes(module).get("__spec__")).get("origin") == finder.origin


def _is_native(name: str) -> bool:
    """Return whether a module of that name is loaded that is not the replacement."""
    module = sys.modules.get(name)
    return module is not None and not is_ours(module)


def attributes(owner: object) -> "dict[str, object]":
    """Return an object's own dictionary, {} if it has none. Runs no code of a module's class."""
    try:
        # A lazy module would be loaded by asking it.
        names = object.__getattribute__(owner, "__dict__")
        return names if type(names) is dict else {}
    except Exception:  # noqa: BLE001  # sys.modules may hold anything
        return {}


class Finder:
    """Meta path finder (importlib.abc.MetaPathFinder), loader where there is no file, and state.

    All that outlives our modules is here, as they may be deleted, or be there twice. Others set
    these attributes, and no more.
    """

    # The file that is served.
    origin = REPLACEMENT
    # Whether startup() has switched the shim on: the startup file did its work.
    started = False
    # The last title that was set in this process or inherited through fork.
    process_title = None  # type: bytes | None
    # Each thread's last title, as the attribute `title`.
    thread_titles = None  # type: _local | None
    # The public names of replacement.py.
    face = {}  # type: dict[str, object]  # noqa: RUF012  # There is one instance.
    # Native functions and their wrappers, by the function's id(), and neutralise.sync().
    wrappers = {}  # type: dict[int, tuple[object, object]]  # noqa: RUF012  # as above
    sync = None  # type: Callable[[], None] | None
    # Titles mode: whether titles are to be shown, and titles.show().
    shows_titles = False
    show = None  # type: Callable[[], None] | None
    # processtitle's function once that is prepared, the last title that it has shown, and under
    # "of" the call of show() that is at it.
    set_to = None  # type: Callable[[str], object] | None
    shown = None  # type: bytes | None
    turn = {}  # type: dict[str, list[int]]  # noqa: RUF012  # as above

    def __reduce__(self) -> str:
        return "finder"  # Copies of sys.meta_path hold this very object.

    @staticmethod  # A method would be bound at every import of anything.
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """Return the replacement's spec for setproctitle and its C module, else None."""
        if name != "setproctitle" and name != "setproctitle._setproctitle":
            return None
        if target is not None and not is_ours(target):
            # The native module is reloaded, over functions that are neutralised already.
            return None
        loader = _importlib.SourceFileLoader(name, finder.origin)
        try:
            loader.path_stats(finder.origin)
        except OSError:  # in an archive or a packaged program, or uninstalled since
            loader = finder
        spec = _importlib.spec_from_file_location(
            name, finder.origin, loader=loader, submodule_search_locations=None
        )
        # What is ours is known by it, so it stays as it is: a relative archive's path, too.
        spec.origin = finder.origin
        if name == "setproctitle":
            spec.submodule_search_locations = []  # Nobody finds native files through it.
        return spec

    def create_module(self, spec: object) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: object) -> None:
        """Give a module the replacement's names, as served before or as is imported here."""
        if not self.face:
            from . import replacement  # noqa: F401  # sets it
        vars(module).update(self.face)


# One for each interpreter, whatever is deleted from sys.modules or put back into sys.meta_path.
finder: Finder = vars(sys).setdefault("_airflow_setproctitle_shim", Finder())
if type(finder) is not Finder:
    from .seldom import complete

    complete(finder, Finder)
