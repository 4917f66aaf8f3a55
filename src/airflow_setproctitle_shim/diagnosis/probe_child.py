"""The program that `probe` runs in a fresh interpreter: its children set titles, and it counts how they end.

Its settings come in an environment variable, because spawned children and the fork server import
this module too and must prepare in the same way. Without the variable the import does nothing.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from .. import is_ours, startup

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


def child(dump: Path, title: str, parent: Any) -> None:
    """Set a title as a worker does. In titles mode, stay until the titles have been read from outside."""
    with dump.open("w") as file:
        faulthandler.enable(file)
        from setproctitle import getproctitle, setproctitle

        setproctitle(title)
        assert getproctitle() == title
        if SETTINGS["titles"]:
            parent.send("titled")
            parent.poll(SETTINGS["timeout"])


def run(directory: Path) -> dict[str, Any]:
    """Start the children, a batch at a time; return how they ended, and what else was seen of them."""
    context: Any = multiprocessing.get_context(SETTINGS["method"])
    if SETTINGS["method"] == "forkserver":
        context.set_forkserver_preload([__spec__.name])
    ends: collections.Counter[str] = collections.Counter()
    listing: list[str] = []
    numbers = range(1, SETTINGS["children"] + 1)
    for first in range(0, len(numbers), AT_ONCE):
        pipes = {}
        for number in numbers[first : first + AT_ONCE]:
            ours, theirs = context.Pipe()
            arguments = (directory / f"{number}.frames", f"probe: worker {number}", theirs)
            process = context.Process(target=child, args=arguments)
            process.start()
            pipes[process] = ours, theirs  # Both kept: sending to a dead child must not fail.
        if SETTINGS["titles"]:
            listing += _listing(pipes)
        deadline = time.monotonic() + SETTINGS["timeout"]
        for process in pipes:
            process.join(max(0, deadline - time.monotonic()))
            ends[_end(process)] += 1
    dump = next((text for path in sorted(directory.glob("*.frames")) if (text := path.read_text())), "")
    frames = [line.strip() for line in dump.splitlines() if line.startswith("  File ")]
    return {"ends": ends, "listing": listing, "frames": frames}


def _listing(pipes: dict[Any, Any]) -> list[str]:
    """Wait until each child has its title or is dead; return what `ps` shows of them: pid and title."""
    deadline = time.monotonic() + SETTINGS["timeout"]
    titled = []
    for process, (ours, _) in pipes.items():
        if ours in wait([ours, process.sentinel], max(0, deadline - time.monotonic())):
            titled.append(str(process.pid))
    command = ["ps", "-o", "pid=,args=", "-p", ",".join(titled)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False) if titled else None
    for ours, _ in pipes.values():
        ours.send("read")
    return done.stdout.splitlines() if done else []


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


def main() -> None:
    """Run the children and print the result as JSON."""
    served = prepare()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps({"served": served, **run(Path(directory))}))


if __name__ == "__main__":
    main()
elif SETTINGS:
    prepare()
