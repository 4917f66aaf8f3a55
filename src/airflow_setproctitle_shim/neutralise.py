"""Neutralises a native setproctitle that was imported before the shim was switched on.

Imported by activate() only when there is one. References in closures, default arguments,
containers and instances cannot be found: they keep calling native code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

from wrapt import FunctionWrapper

from . import SERVED, finder, is_active, is_ours, replacement
from .stderr import say


class Neutralised(FunctionWrapper):  # type: ignore[type-arg]  # generic only since wrapt 2
    """Stands where a native function stood: calls the replacement while the shim is on."""

    def __reduce_ex__(self, protocol: object) -> str:
        """Pickle by name, as the native function does."""
        return str(self.__name__)


# Each module done, its globals before, and the wrappers made for it. On the finder, so that any copy of
# this module can complete or undo what another one, or a thread that a fork left behind, has begun.
_done = cast("list[tuple[object, dict[str, Any], list[Neutralised]]]", finder.neutralised)


def neutralise() -> int:
    """Put harmless wrappers where setproctitle's native functions stand, in it and in all modules' globals.

    Returns how many places were rebound; with `python -v` a line on stderr says so too.
    """
    for module in [sys.modules[name] for name in SERVED if name in sys.modules]:
        namespace = _namespace(module)
        # In py-setproctitle's Python layer over our functions there is nothing native.
        if is_ours(module) or is_ours(namespace.get("_setproctitle")):
            continue
        known = {id(function) for wrapper in _wrappers() for function in (wrapper, wrapper.__wrapped__)}
        natives = [(name, namespace[name]) for name in replacement.__all__ if callable(namespace.get(name))]
        fresh = [_wrapped(name, native) for name, native in natives if id(native) not in known]
        if natives and not any(module is done for done, *_ in _done):
            _done.append((module, namespace.copy(), fresh))
        # Or a fresh native function could be had by importing setproctitle._setproctitle once more.
        if "__path__" in namespace:
            namespace["__path__"] = []
    places = _rebind({id(wrapper.__wrapped__): wrapper for wrapper in _wrappers()})
    if sys.flags.verbose:
        say(f"neutralised setproctitle in {places} places")
    return places


def _wrappers() -> list[Neutralised]:
    return [wrapper for _, _, made in _done for wrapper in made]


def _wrapped(name: str, native: Callable[..., object]) -> Neutralised:
    safe = getattr(replacement, name)
    # `enabled`: whoever kept the wrapper has the native function back after deactivate().
    return Neutralised(native, lambda _native, _self, args, kwargs: safe(*args, **kwargs), enabled=is_active)


def restore() -> int:
    """Put every native function back where its wrapper stands. Returns how many places were rebound."""
    for module, before, _ in _done:
        namespace = _namespace(module)
        if is_ours(module):  # importlib.reload() has run replacement.py in it.
            namespace.clear()
            namespace.update(before)
        for name in ("__path__", "_setproctitle"):
            if name in before and (name == "__path__" or is_ours(namespace.get(name))):
                namespace[name] = before[name]
    # Last: a module imported while another one's C module was neutralised had wrappers from the beginning.
    places = _rebind({id(wrapper): wrapper.__wrapped__ for wrapper in _wrappers()})
    _done.clear()
    return places


def _rebind(replacements: dict[int, object]) -> int:
    """Replace each object whose id is a key wherever it is a module's global; return how often."""
    places = 0
    for module in [*(module for module, *_ in _done), *sys.modules.copy().values()]:
        namespace = _namespace(module)
        # A copy, because other threads may import while we walk.
        for name, value in namespace.copy().items():
            if id(value) in replacements:
                namespace[name] = replacements[id(value)]
                places += 1
    return places


def _namespace(module: object) -> dict[str, Any]:
    """Return the globals of an entry of sys.modules, which may be anything; {} if it has none."""
    try:
        # Past any __getattribute__ of its own: asking a lazy module for its __dict__ would load it.
        namespace = object.__getattribute__(module, "__dict__")
    except Exception:  # noqa: BLE001  # a property of somebody else's class may raise anything
        return {}
    return namespace if isinstance(namespace, dict) else {}
