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

from .. import is_ours, startup

# What a child's exit code says.
ENDS: dict[int | None, str] = {-number: number.name for number in signal.Signals}
ENDS.update({0: "ok", -signal.SIGALRM: "hung"})


def work(title: str, timeout: int, show: bool) -> None:
    """Set a title, in a child, as a worker does. It ends itself when it hangs."""
    signal.alarm(timeout)
    from setproctitle import getproctitle, setproctitle

    setproctitle(title)
    assert getproctitle() == title
    if show:
        subprocess.run(["ps", "-o", "pid=,args=", "-p", str(os.getpid())], check=True)


def main(
    children: int, at_once: int, timeout: int, threads: int, titles: bool, simulate: bool, file: str
) -> None:
    """Get where an interpreter on a Mac is before its first fork, run the children in batches, and print the result."""
    here, sys.platform = sys.platform, "darwin" if simulate else sys.platform
    if file:
        site.addpackage(*os.path.split(file), set())
    elif simulate:
        startup()
    sys.platform = here
    import setproctitle

    for _ in range(threads):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    fork = multiprocessing.get_context("fork")
    ends = Counter[str]()
    titled = [(f"probe: worker {n + 1}", timeout, titles) for n in range(children)]
    while batch := [fork.Process(target=work, args=titled.pop(0)) for _ in titled[:at_once]]:
        for child in batch:
            child.start()
        for child in batch:
            child.join()
            ends[ENDS.get(child.exitcode, f"exit {child.exitcode}")] += 1
    print(json.dumps({"served": is_ours(setproctitle), "ends": ends}))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Nothing is said once nobody reads.
    main(**json.loads(sys.argv[1]))
