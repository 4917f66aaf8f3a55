"""Makes a native setproctitle that was imported before the shim harmless, and gives it back.

Imported by activate() only when there is one. What cannot be found keeps calling native code:
references in closures, default arguments, containers, classes and instances.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from wrapt import FunctionWrapper

from . import SERVED, attributes, finder, is_active, replacement


class Neutralised(FunctionWrapper):  # type: ignore[type-arg]  # generic only since wrapt 2
    """Stands where a native function stood: calls the replacement while the shim is on."""

    def __reduce_ex__(self, protocol: object) -> str:
        """Pickle by name, as the native function does."""
        return str(self.__name__)

    def __deepcopy__(self, memo: object = None) -> Neutralised:
        """Return itself, as copying any function does."""
        return self

    __copy__ = __deepcopy__


def sync() -> None:
    """Make all modules' globals agree with the switch: wrappers while it is on, else the natives.

    Whoever changes the switch calls this afterwards, so it ends right whatever threads do at once,
    and a call that was interrupted is completed by the next one.
    """
    active = None
    while active is not is_active():
        active = is_active()
        # Copies here and below, because other threads may switch or import meanwhile.
        natives = {id(wrapper): native for native, wrapper in list(finder.wrappers.values())}
        for namespace in _namespaces():
            for name, value in namespace.copy().items():
                if active and _is_native(value):
                    namespace[name] = _wrapper(value)
                elif not active and id(value) in natives:
                    namespace[name] = natives[id(value)]


def _namespaces() -> Iterator[dict[str, object]]:
    """Yield the globals of all modules.

    A setproctitle that was dropped from sys.modules is among them if a module still uses it.
    """
    modules: list[object] = list(sys.modules.values())
    for module in modules:  # It grows meanwhile.
        namespace = attributes(module)
        yield namespace
        for value in namespace.copy().values():
            if (
                type(value) is ModuleType
                and _is_served(value.__dict__.get("__name__"))
                and not any(value is known for known in modules)
            ):
                modules.append(value)


def _is_served(name: object) -> bool:
    """Return whether it is a name of setproctitle; its type first, as == may run any code."""
    return type(name) is str and name in SERVED


def _is_native(value: Any) -> bool:
    """Return whether it is a function of a setproctitle that is not ours, in C or in Python."""
    # By type(), as a proxy's class lies, and asking anything else may run somebody's code.
    if type(value) is FunctionType:
        # On PyPy some functions of C modules are of this type, and have no globals.
        names = value.__globals__ or {}
        module = names.get("__name__")
    elif type(value).__name__ == "builtin_function_or_method":  # types has no such name on PyPy
        names = {}
        module = value.__module__
    else:
        return False
    return (
        _is_served(module)
        and value.__name__ in replacement.__all__
        and attributes(names.get("__spec__")).get("origin") != finder.origin
    )


def _wrapper(native: Any) -> object:
    """Return the one wrapper of a native function."""
    safe = getattr(replacement, native.__name__)
    # `enabled`: whoever kept the wrapper has the native function back after deactivate().
    made = Neutralised(
        native, lambda _native, _self, args, kwargs: safe(*args, **kwargs), enabled=is_active
    )
    return finder.wrappers.setdefault(id(native), (native, made))[1]
