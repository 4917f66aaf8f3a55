"""The program that `probe` runs in a fresh interpreter: its children set titles, and it counts how they end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import site
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

from .. import is_ours, startup


def prepare(file: str, simulate: bool, threads: int) -> bool:
    """Get this interpreter where one on a Mac is before its first fork; return whether the shim serves."""
    here, sys.platform = sys.platform, "darwin" if simulate else sys.platform
    try:
        if file:
            site.addpackage(*os.path.split(file), set())
        elif simulate:
            startup()
    finally:
        sys.platform = here
    import setproctitle

    for _ in range(threads):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return is_ours(setproctitle)


def work(title: str, timeout: int, show: bool) -> None:
    """Set a title, in a child, as a worker does. It ends itself when it hangs."""
    signal.alarm(timeout)
    from setproctitle import getproctitle, setproctitle

    setproctitle(title)
    assert getproctitle() == title
    if show:
        subprocess.run(["ps", "-o", "pid=,args=", "-p", str(os.getpid())], check=True)


def end(code: int) -> str:
    """Return what a child's exit code says: "ok", "hung", a signal's name, or "exit N"."""
    if code >= 0:
        return f"exit {code}" if code else "ok"
    return "hung" if code == -signal.SIGALRM else signal.Signals(-code).name


def main(children: int, at_once: int, timeout: int, titles: bool, **where: Any) -> None:
    """Run the children, a batch at a time, and print the result as JSON."""
    served, ends, fork = prepare(**where), Counter[str](), multiprocessing.get_context("fork")
    todo = [
        fork.Process(target=work, args=(f"probe: worker {n + 1}", timeout, titles)) for n in range(children)
    ]
    while batch := [todo.pop(0) for _ in todo[:at_once]]:
        for child in batch:
            child.start()
        for child in batch:
            child.join()
            ends[end(child.exitcode or 0)] += 1
    print(json.dumps({"served": served, "ends": ends}))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Nothing is said once nobody reads.
    main(**json.loads(sys.argv[1]))
