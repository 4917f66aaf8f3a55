"""Records what an interpreter does, by audit events. Imported by the first startup file of an environment.

Arguments become short texts: a file's path in site-packages or the standard library, an imported name.
It imports nothing that an interpreter has not loaded: the same import by what is watched would not show.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_places = [os.path.dirname(__file__), os.path.dirname(os.__file__)]
_events: list[list[str]] = []
_recording = True


def _record(event: str, arguments: "tuple[Any, ...]") -> None:
    if _recording:
        _events.append([event, _described(event, arguments)])


def _described(event: str, arguments: "tuple[Any, ...]") -> str:
    """Return the one argument that matters, as text."""
    if event == "open":
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        return ("WRITE " if writes else "") + _short(path)
    if event == "exec":
        return _short(arguments[0].co_filename)
    if event == "compile":
        return _short(arguments[1])
    if event in ("import", "os.listdir", "os.scandir"):
        return _short(arguments[0])
    return repr(arguments)[:200]


def _short(path: object) -> str:
    """Return a path without the place it lies in; bytecode is named by its source."""
    path = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else repr(path)
    place = next((place for place in _places if path.startswith(place + os.sep)), None)
    if place is None:
        return path
    directory, name = os.path.split(path[len(place) + 1 :])
    if os.path.basename(directory) == "__pycache__":
        directory, name = os.path.dirname(directory), name.partition(".")[0] + ".py"
    return (
        os.path.join(directory, name)
        if place == _places[0]
        else "stdlib: " + os.path.join(directory, name)
    )


def report() -> None:
    """Stop recording and print the events as JSON."""
    global _recording
    _recording = False
    import json

    print(json.dumps(_events))


sys.addaudithook(_record)
