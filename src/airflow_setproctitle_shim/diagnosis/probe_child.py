"""The program that `probe` runs in a fresh interpreter: its children set titles, and it counts how they end."""

from __future__ import annotations

import collections
import json
import os
import signal
import site
import subprocess
import sys
import threading
import traceback
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


def fork(title: str, timeout: int, show: bool) -> int:
    """Return the pid of a child that sets a title as a worker does. It ends itself when it hangs."""
    if pid := os.fork():
        return pid
    signal.alarm(timeout)
    try:
        from setproctitle import getproctitle, setproctitle

        setproctitle(title)
        assert getproctitle() == title
        if show:
            subprocess.run(["ps", "-o", "pid=,args=", "-p", str(os.getpid())], check=True)
        os._exit(0)
    except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as its parent
        traceback.print_exc()
        os._exit(1)


def end(pid: int) -> str:
    """Wait for a child; return how it ended: "ok", "hung", a signal's name, or "exit N"."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGALRM:
        return "hung"
    return signal.Signals(-code).name if code < 0 else f"exit {code}" if code else "ok"


def main(children: int, at_once: int, timeout: int, titles: bool, **where: Any) -> None:
    """Run the children, a batch at a time, and print the result as JSON."""
    served, ends = prepare(**where), collections.Counter[str]()
    for first in range(1, children + 1, at_once):
        numbers = range(first, min(first + at_once, children + 1))
        ends.update(map(end, [fork(f"probe: worker {number}", timeout, titles) for number in numbers]))
    print(json.dumps({"served": served, "ends": ends}))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Nothing is said once nobody reads.
    main(**json.loads(sys.argv[1]))
