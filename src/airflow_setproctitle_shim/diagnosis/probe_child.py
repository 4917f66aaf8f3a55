"""The program that `probe` runs in a fresh interpreter: its children set titles, and it counts how they end.

Its settings come in an environment variable, because the fork server imports this module too and must prepare in
the same way. Without the variable the import does nothing. It writes no file, and ends when its standard input does.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import multiprocessing
import os
import signal
import site
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from multiprocessing.connection import wait
from typing import Any

from .. import VARIABLE, is_ours, startup

SETTINGS: dict[str, Any] = json.loads(os.environ.get(f"{VARIABLE}_PROBE", "{}"))
STDIN = 0


def prepare() -> bool:
    """Get this interpreter where one on a Mac is before its first fork; return whether the shim serves."""
    if SETTINGS["simulate"]:
        here, sys.platform = sys.platform, "darwin"
        try:
            if SETTINGS["startup_file"]:
                site.addpackage(*os.path.split(SETTINGS["startup_file"]), set())
            else:
                startup()
        finally:
            sys.platform = here
    import setproctitle

    for _ in range(SETTINGS["threads"]):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return is_ours(setproctitle)


def child(title: str, pipe: Any) -> None:
    """Set a title as a worker does. In titles mode, stay until the titles have been read from outside."""
    faulthandler.enable(pipe.fileno(), all_threads=False)
    from setproctitle import getproctitle, setproctitle

    setproctitle(title)
    assert getproctitle() == title
    if SETTINGS["titles"]:
        os.write(pipe.fileno(), b"titled\n")
        pipe.poll(SETTINGS["timeout"])


def run() -> dict[str, Any]:
    """Start the children, a batch at a time; return how they ended, and what else was seen of them."""
    context: Any = multiprocessing.get_context(SETTINGS["method"])
    if SETTINGS["method"] == "forkserver":
        context.set_forkserver_preload([__spec__.name])
    ends: collections.Counter[str] = collections.Counter()
    listing: list[str] = []
    frames: list[str] = []
    numbers = range(1, SETTINGS["children"] + 1)
    for first in range(0, len(numbers), SETTINGS["at_once"]):
        pipes = {}
        for number in numbers[first : first + SETTINGS["at_once"]]:
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(f"probe: worker {number}", theirs))
            process.start()
            pipes[process] = ours, theirs  # Both kept: writing to a dead child must not fail.
        if SETTINGS["titles"]:
            listing += _listing(pipes)
        deadline = time.monotonic() + SETTINGS["timeout"]
        alive = {process.sentinel: process for process in pipes}
        while alive and (ended := _first(alive, deadline)):
            for sentinel in ended:
                alive.pop(sentinel).join()
        for process, (ours, _) in pipes.items():
            ends[_end(process)] += 1
            if not frames and ours.poll():
                text = os.read(ours.fileno(), 2**16).decode(errors="replace")
                frames = [line.strip() for line in text.splitlines() if line.startswith("  File ")]
    return {"ends": ends, "listing": listing, "frames": frames}


def _first(waited: Iterable[Any], deadline: float) -> set[Any]:
    """Return those that are ready first; none once the deadline has passed. Ends this process if its input ends."""
    ready = set(wait([STDIN, *waited], max(0, deadline - time.monotonic())))
    if STDIN in ready:
        raise SystemExit("the probe has ended")
    return ready


def _listing(pipes: dict[Any, Any]) -> list[str]:
    """Wait until each child has its title or is dead; return what `ps` shows of them: pid and title."""
    deadline = time.monotonic() + SETTINGS["timeout"]
    titled = []
    for process, (ours, _) in pipes.items():
        if ours in _first({ours, process.sentinel}, deadline) and os.read(ours.fileno(), 7) == b"titled\n":
            titled.append(str(process.pid))
    command = ["ps", "-o", "pid=,args=", "-p", ",".join(titled)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False) if titled else None
    for ours, _ in pipes.values():
        os.write(ours.fileno(), b"read\n")
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
    try:
        print(json.dumps({"served": served, **run()}))
    finally:
        for process in multiprocessing.active_children():
            process.kill()


if __name__ == "__main__":
    main()
elif SETTINGS:
    prepare()
