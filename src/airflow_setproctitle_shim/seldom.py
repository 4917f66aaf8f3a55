"""What the switch needs seldom, apart from what every start reads. Imported when it is needed."""

import sys

_bootstrap = sys.modules["_frozen_importlib"]


def complete(older: object, newer: type) -> None:
    """Give the finder of an older copy of the package what it lacks."""
    for name, value in vars(newer).items():
        if not hasattr(older, name):
            setattr(older, name, value)


def wait_for_an_import(name: str) -> None:
    """Let another thread finish an import that it began before our finder was there.

    In a child that was forked meanwhile the module's lock stays taken: there nobody is waited for.
    """
    reference = _bootstrap._module_locks.get(name)
    lock = reference and reference()
    if lock and lives_in(lock.owner, vars(_bootstrap)):
        _bootstrap._lock_unlock_module(name)


def lives_in(thread: int, names: "dict[str, object]") -> bool:
    """Return whether that thread is inside of a function with these globals.

    Its number alone does not tell: a child gives those of its parent's threads to its own.
    """
    frame = sys._current_frames().get(thread)
    while frame and frame.f_globals is not names:
        frame = frame.f_back
    return frame is not None
