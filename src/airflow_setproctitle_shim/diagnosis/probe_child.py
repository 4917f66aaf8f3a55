"""The program that `probe` runs in a fresh interpreter: its children set titles, and it counts how they end.

Its settings come in an environment variable, because the fork server imports this module too and must prepare in
the same way. Without the variable the import does nothing. It writes no file, and ends when its standard input does.
"""

from __future__ import annotations

import collections
import json
import multiprocessing
import os
import signal
import site
import subprocess
import sys
import threading
import time
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
            if SETTINGS["file"]:
                site.addpackage(*os.path.split(SETTINGS["file"]), set())
            else:
                startup()
        finally:
            sys.platform = here
    import setproctitle

    for _ in range(SETTINGS["threads"]):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return is_ours(setproctitle)


def child(title: str) -> None:
    """Set a title as a worker does; in titles mode print what `ps` sees of this process."""
    from setproctitle import getproctitle, setproctitle

    setproctitle(title)
    assert getproctitle() == title
    if SETTINGS["titles"]:
        subprocess.run(["ps", "-o", "pid=,args=", "-p", str(os.getpid())], check=True)


def ends(numbers: range) -> list[str]:
    """Start a child for each number; return how they ended: "ok", "hung", a signal's name, or "exit N"."""
    context: Any = multiprocessing.get_context(SETTINGS["method"])
    if SETTINGS["method"] == "forkserver":
        context.set_forkserver_preload([__spec__.name])
    children = [context.Process(target=child, args=(f"probe: worker {number}",)) for number in numbers]
    for process in children:
        process.start()
    deadline = time.monotonic() + SETTINGS["timeout"]
    alive = {process.sentinel: process for process in children}
    while alive and (ready := wait([STDIN, *alive], max(0, deadline - time.monotonic()))):
        if STDIN in ready:
            raise SystemExit("the probe has ended")
        for sentinel in ready:
            alive.pop(sentinel).join()
    return ["hung" if process in alive.values() else end(process.exitcode) for process in children]


def end(code: int) -> str:
    """Return an exit status in a word."""
    return signal.Signals(-code).name if code < 0 else f"exit {code}" if code else "ok"


def main() -> None:
    """Run the children, a batch at a time, and print the result as JSON."""
    result: collections.Counter[str] = collections.Counter()
    try:
        served = prepare()
        for first in range(1, SETTINGS["children"] + 1, SETTINGS["at_once"]):
            result.update(ends(range(first, min(first + SETTINGS["at_once"], SETTINGS["children"] + 1))))
            kill()
        print(json.dumps({"served": served, "ends": result}))
    finally:
        kill()


def kill() -> None:
    """Kill the children that are left."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


if __name__ == "__main__":
    main()
elif SETTINGS:
    prepare()
