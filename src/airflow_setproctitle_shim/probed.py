"""The program that `probe` runs in a fresh interpreter: its children set titles, and it counts how they end.

Its settings come in an environment variable, because spawned children and the fork server import
this module too and must prepare in the same way. Without the variable the import does nothing.
"""

from __future__ import annotations

import collections
import faulthandler
import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import is_ours, startup

VARIABLE = "AIRFLOW_SETPROCTITLE_SHIM_PROBE"
SETTINGS: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))
AT_ONCE = 20


def prepare() -> bool:
    """Get this interpreter where one on a Mac is before its first fork; return whether the shim serves."""
    if SETTINGS["simulate"]:
        here, sys.platform = sys.platform, "darwin"
        try:
            startup()
        finally:
            sys.platform = here
    import setproctitle

    for _ in range(SETTINGS["threads"]):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return is_ours(setproctitle)


def child(directory: Path, number: int) -> None:
    """Set a title as a worker does. In titles mode, stay until the titles have been read from outside."""
    with open(directory / f"{number}.frames", "w") as frames:
        faulthandler.enable(frames)
        from setproctitle import getproctitle, setproctitle

        setproctitle(f"probe: worker {number}")
        assert getproctitle() == f"probe: worker {number}"
        if SETTINGS["titles"]:
            (directory / f"{number}.titled").touch()
            _wait(SETTINGS["timeout"], (directory / "read").exists)


def run(directory: Path) -> dict[str, Any]:
    """Start the children, a batch at a time; return how they ended, and what else was seen of them."""
    ends: collections.Counter[str] = collections.Counter()
    listing: list[str] = []
    numbers = range(1, SETTINGS["children"] + 1)
    for first in range(0, len(numbers), AT_ONCE):
        processes = _started(directory, numbers[first : first + AT_ONCE])
        deadline = time.monotonic() + SETTINGS["timeout"]
        if SETTINGS["titles"]:
            listing += _ps([process.pid for process in processes])
            (directory / "read").touch()
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
            ends[_end(process)] += 1
    dump = next((text for path in sorted(directory.glob("*.frames")) if (text := path.read_text())), "")
    frames = [line.strip() for line in dump.splitlines() if line.startswith("  File ")]
    return {"ends": ends, "listing": listing, "frames": frames}


def _started(directory: Path, numbers: range) -> list[Any]:
    """Return a started process for each number; in titles mode each has its title by then, or is dead."""
    context: Any = multiprocessing.get_context(SETTINGS["method"])
    if SETTINGS["method"] == "forkserver":
        context.set_forkserver_preload([__spec__.name])
    (directory / "read").unlink(missing_ok=True)
    processes = {number: context.Process(target=child, args=(directory, number)) for number in numbers}
    for process in processes.values():
        process.start()
    if SETTINGS["titles"]:
        for number, process in processes.items():
            titled = directory / f"{number}.titled"
            _wait(SETTINGS["timeout"], functools.partial(_seen, process, titled))
    return list(processes.values())


def _seen(process: Any, titled: Path) -> bool:
    """Return whether a child has set its title, or is dead."""
    return process.exitcode is not None or titled.exists()


def _end(process: Any) -> str:
    """Return how a process ended: "ok", "hung" (it is killed then), a signal's name, or "exit N"."""
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
        return "hung"
    if code < 0:
        return signal.Signals(-code).name
    return f"exit {code}" if code else "ok"


def _ps(pids: list[int]) -> list[str]:
    """Return what `ps` shows of the processes: pid and title, a line each."""
    command = ["ps", "-o", "pid=,args=", "-p", ",".join(map(str, pids))]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()


def _wait(seconds: float, condition: Callable[[], bool]) -> None:
    """Return when `condition` holds or the seconds are over."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def main() -> None:
    """Run the children and print the result as JSON."""
    served = prepare()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps({"served": served, **run(Path(directory))}))


if __name__ == "__main__":
    main()
elif SETTINGS:
    prepare()
