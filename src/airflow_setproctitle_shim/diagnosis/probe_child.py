"""The program that `probe` runs in a fresh interpreter: its workers set titles, and it counts how they end."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import threading
import traceback
from collections import Counter

from .. import REPLACEMENT

# What an exit code says.
ENDS = {-number: number.name for number in signal.Signals}
ENDS.update({0: "ok", -signal.SIGALRM: "hung"})


def end_with_parent() -> None:
    """Wait until nobody holds the other end of stdin, and end all that was started here."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def fork(title: str, seconds: int) -> int:
    """Fork a worker that sets the title and stops; return its process id."""
    if pid := os.fork():
        return pid
    try:
        signal.alarm(seconds)
        from setproctitle import getproctitle, setproctitle

        setproctitle(title)
        assert getproctitle() == title
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    except BaseException:  # noqa: BLE001  # A worker must not go on as the program that forked it.
        traceback.print_exc()
    os._exit(1)


def main(children: int, at_once: int, seconds: int, titles: bool, file: str) -> None:
    """Get where an interpreter on a Mac is before its first fork, fork the workers in batches, print the result."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    if file:
        here, sys.platform = sys.platform, "darwin"
        site.addpackage(*os.path.split(file), set())
        sys.platform = here
    import setproctitle

    for _ in range(3):  # Real programs have threads.
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    ends, lines = Counter[str](), list[str]()
    for first in range(0, children, at_once):
        numbers = range(first + 1, min(first + at_once, children) + 1)
        pids = [fork(f"probe: worker {number}", seconds) for number in numbers]
        ended = {pid: os.waitpid(pid, os.WUNTRACED)[1] for pid in pids}
        if titles:
            # One -o for each: macOS's ps takes all that follows a `=` as a column's title.
            ps = ["ps", "-ww", "-o", "pid=", "-o", "args=", "-p", ",".join(map(str, pids))]
            shown = subprocess.run(ps, check=False, capture_output=True, text=True, errors="replace").stdout
            lines += map(str.strip, shown.splitlines())
        for pid, status in ended.items():
            if os.WIFSTOPPED(status):
                os.kill(pid, signal.SIGCONT)
                status = os.waitpid(pid, 0)[1]
            code = os.waitstatus_to_exitcode(status)
            ends[ENDS.get(code, f"exit {code}")] += 1
    served = getattr(setproctitle.__spec__, "origin", None) == REPLACEMENT
    print(json.dumps({"ends": ends, "served": served, "ps": lines}))


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
