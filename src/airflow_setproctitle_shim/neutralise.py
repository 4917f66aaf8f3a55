"""Makes a native setproctitle that was imported before the shim harmless, and gives it back.

Imported by activate() only when there is one. What cannot be found keeps calling native code:
references in closures, default arguments, containers, classes and instances.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any

from wrapt import FunctionWrapper

from . import SERVED, finder, is_active, replacement


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
    """Make all modules' globals agree with the switch: wrappers while it is on, native functions while it is off.

    Whoever changes the switch calls this afterwards, so it ends right whatever threads do at once, and a
    call that was interrupted is completed by the next one.
    """
    active = None
    while active is not is_active():
        active = is_active()
        wrapped = {id(wrapper): wrapper.__wrapped__ for wrapper in list(finder.wrappers.values())}
        modules: list[object] = list(sys.modules.values())
        for module in modules:  # It grows meanwhile.
            namespace = _namespace(module)
            # A copy, because other threads may import while we walk.
            for name, value in namespace.copy().items():
                if active and _is_native(value):
                    namespace[name] = _wrapper(value)
                elif not active and id(value) in wrapped:
                    namespace[name] = wrapped[id(value)]
                # One that was dropped from sys.modules, but is still in use.
                elif (
                    type(value) is ModuleType
                    and value.__dict__.get("__name__") in SERVED
                    and not any(value is module for module in modules)
                ):
                    modules.append(value)


def _is_native(value: Any) -> bool:
    """Return whether it is a function of a setproctitle that is not ours, in C or in Python."""
    # By type(), as a proxy's class lies, and as attributes of anything else may run somebody's code.
    if type(value) is FunctionType:
        module, spec = value.__globals__.get("__name__"), value.__globals__.get("__spec__")
    elif (
        type(value).__name__ == "builtin_function_or_method"
    ):  # which types has no name for on PyPy
        module, spec = value.__module__, None
    else:
        return False
    return (
        module in SERVED
        and value.__name__ in replacement.__all__
        and getattr(spec, "origin", None) != finder.origin
    )


def _wrapper(native: Any) -> Neutralised:
    """Return the one wrapper of a native function."""
    safe = getattr(replacement, native.__name__)
    # `enabled`: whoever kept the wrapper has the native function back after deactivate().
    made = Neutralised(
        native, lambda _native, _self, args, kwargs: safe(*args, **kwargs), enabled=is_active
    )
    wrapper: Neutralised = finder.wrappers.setdefault(id(native), made)
    return wrapper


def _namespace(module: object) -> dict[str, Any]:
    """Return the globals of an entry of sys.modules, which may be anything; {} if it has none."""
    try:
        # Past any __getattribute__ of its own: asking a lazy module for its __dict__ would load it.
        namespace = object.__getattribute__(module, "__dict__")
    except Exception:  # noqa: BLE001  # a property of somebody else's class may raise anything
        return {}
    return namespace if isinstance(namespace, dict) else {}
