"""Neutralises a native setproctitle that was imported before the shim was switched on.

Imported by activate() only when there is one. References in closures, default arguments,
containers and instances cannot be found: they keep calling native code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from wrapt import FunctionWrapper

from . import is_active, is_ours, replacement


class Neutralised(FunctionWrapper):  # type: ignore[type-arg]  # generic only since wrapt 2
    """Stands where a native function stood: calls the replacement while the shim is on."""

    def __init__(self, name: str, native: Callable[..., Any]) -> None:
        safe = getattr(replacement, name)
        # `enabled`: whoever kept this object has the native function back after deactivate().
        super().__init__(native, lambda _native, _self, args, kwargs: safe(*args, **kwargs), is_active)
        self._self_name = name

    def __reduce_ex__(self, protocol: object) -> str:
        """Pickle by name, as the native function does."""
        return str(self._self_name)


_wrappers: list[Neutralised] = []
_before: list[tuple[ModuleType, dict[str, Any]]] = []


def neutralise(module: ModuleType) -> int:
    """Put harmless wrappers where `module`'s native functions stand, in it and in all modules' globals.

    Returns how many places were rebound; with `python -v` a line on stderr says so too.
    """
    namespace = _namespace(module)
    natives = {name: namespace.get(name) for name in replacement.__all__}
    fresh = [Neutralised(n, f) for n, f in natives.items() if callable(f) and not isinstance(f, Neutralised)]
    if not fresh:
        return 0
    _wrappers.extend(fresh)
    _before.append((module, namespace.copy()))
    # Or a fresh native function could be had by importing setproctitle._setproctitle once more.
    if "__path__" in namespace:
        namespace["__path__"] = []
    places = _rebind({id(wrapper.__wrapped__): wrapper for wrapper in fresh})
    if sys.flags.verbose and sys.stderr:
        sys.stderr.write(f"# airflow-setproctitle-shim neutralised {module!r} in {places} places\n")
    return places


def restore() -> int:
    """Put every native function back where its wrapper stands. Returns how many places were rebound."""
    places = _rebind({id(wrapper): wrapper.__wrapped__ for wrapper in _wrappers})
    for module, before in _before:
        namespace = _namespace(module)
        if is_ours(module):  # importlib.reload() has run replacement.py in it.
            namespace.clear()
            namespace.update(before)
        elif "__path__" in before:
            namespace["__path__"] = before["__path__"]
    _wrappers.clear()
    _before.clear()
    return places


def _rebind(replacements: dict[int, object]) -> int:
    """Replace each object whose id is a key wherever it is a module's global; return how often."""
    places = 0
    for module in [*(module for module, _ in _before), *sys.modules.copy().values()]:
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
