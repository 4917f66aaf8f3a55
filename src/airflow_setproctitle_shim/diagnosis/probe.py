"""Forks workers that set a title, without the shim and with it, in fresh interpreters, and tells how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import site
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from .. import OFF, REPLACEMENT, VARIABLE, setting
from . import packages, status

AT_ONCE, SECONDS = 20, 30  # workers, and how long they may take
ENDS = {**{-number: number.name for number in signal.Signals}, 0: "ok", -signal.SIGALRM: "hung"}


def probe(children: int) -> dict[str, Any]:
    """Return what `probe --json` prints. Raises OSError if workers cannot be forked."""
    value = setting()
    if value == "titles" and not shutil.which("ps"):
        raise FileNotFoundError("there is no program ps on PATH, which shows titles")
    simulated = "" if packages.version("setproctitle") else "no setproctitle is installed here"
    simulated = simulated if sys.platform == "darwin" else "this is not a Mac"
    off = _run("off", children, bool(simulated))
    on = _run("auto" if value in OFF else value, children, bool(simulated))
    says, fix = _verdict(off, on, value, children)
    verdict = {"ok": says.startswith("OK"), "simulated": bool(simulated), "says": says, "fix": fix}
    return {**verdict, "why_simulated": simulated, "ps": on.pop("ps"), "without": off, "with": on}


def _verdict(off: dict[str, Any], on: dict[str, Any], value: str, children: int) -> tuple[str, str]:
    """Return what the two runs show, and a line to copy where something is to be done."""
    titles = sorted(f"probe: worker {n + 1}" for n in range(children))
    if on["killed"] + on["ends"].get("ok", 0) < children or any("exit" in end for end in off["ends"]):
        return f"FAILED: workers ended by themselves, or hung. {on['stderr'] or off['stderr']}", ""
    if not on["served"]:
        why, fix = status.why_skipped()
        return f"NOT OK: the shim is not on here. {why}", fix or f"{packages.COMMAND} status"
    if on["killed"]:
        return f"NOT OK: {on['killed']} workers were killed with the shim.", f"{packages.COMMAND} doctor"
    if value == "titles" and sorted(line.partition(" ")[2] for line in on["ps"]) != titles:
        fix = packages.install(f"'{packages.DISTRIBUTION}[titles]'", "--upgrade")
        return "NOT OK: ps does not show the titles that were set.", fix
    if off["ends"] == {"ok": children}:
        says = "NOT PROVED: no worker was killed without the shim, either. Try more of them."
        return says, f"{packages.COMMAND} probe -n {min(10 * children, 10_000)}"
    if value in OFF:
        return f"NOT OK: the shim works, but {VARIABLE}={value} switches it off here.", f"unset {VARIABLE}"
    return "OK: the shim works.", ""


def _run(value: str, children: int, simulate: bool) -> dict[str, Any]:
    """Return how the workers ended with AIRFLOW_SETPROCTITLE_SHIM at `value`. Raises OSError if it is not known."""
    file = ""
    with contextlib.suppress(LookupError):
        path, is_read = packages.startup_file()
        # On a Mac, Python itself runs it.
        file = str(path) if is_read and path.exists() and sys.platform != "darwin" else ""
    given = json.dumps([children, AT_ONCE, SECONDS, value == "titles", file])
    stand_in = str(Path(__file__).parent.parent / "stand_in")
    paths = [stand_in] * simulate + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    pythonpath = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    # The pipe tells the program that we are gone, however we end. In a session of its own, what is left can be
    # killed as a group. Modules in the working directory are not found, as a program's users' are not.
    alive, ours = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", f"{__package__}.probe", given], cwd=os.sep, start_new_session=True,
        env={**os.environ, VARIABLE: value, "PYTHONPATH": pythonpath},
        stdin=alive, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=SECONDS * (2 - -children // AT_ONCE))
        except subprocess.TimeoutExpired:
            raise ChildProcessError("the program that forks the workers hung") from None
        finally:
            os.close(alive)
            os.close(ours)
            with contextlib.suppress(ProcessLookupError, PermissionError):  # Nobody is left.
                os.killpg(process.pid, signal.SIGKILL)
    stderr = err.decode(errors="replace").strip().rpartition("\n")[2]
    if process.returncode:
        raise ChildProcessError(f"the program that forks the workers failed: {stderr or process.returncode}")
    run = json.loads(out.splitlines()[-1])
    killed = sum(count for end, count in run["ends"].items() if end.startswith("SIG"))
    return {"children": children, "killed": killed, **run, "stderr": stderr}


def _main(children: int, at_once: int, seconds: int, titles: bool, file: str) -> None:
    """Get where an interpreter on a Mac is before its first fork, fork the workers in batches, print the result."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if file:
        here, sys.platform = sys.platform, "darwin"
        site.addpackage(*os.path.split(file), set())
        sys.platform = here
    import setproctitle

    for _ in range(3):  # Real programs have threads.
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    ends, lines = Counter[str](), list[str]()
    for first in range(1, children + 1, at_once):
        numbers = range(first, min(first + at_once, children + 1))
        pids = [_fork(f"probe: worker {number}", seconds) for number in numbers]
        ended = {pid: os.waitpid(pid, os.WUNTRACED)[1] for pid in pids}
        if titles:
            # One -o for each: macOS's ps takes all that follows a `=` as a column's title.
            ps = ["ps", "-ww", "-o", "pid=", "-o", "args=", "-p", ",".join(map(str, pids))]
            shown = subprocess.run(ps, check=False, capture_output=True, text=True, errors="replace").stdout
            lines += map(str.strip, shown.splitlines())
        for pid, end in ended.items():
            if os.WIFSTOPPED(end):
                os.kill(pid, signal.SIGCONT)
                end = os.waitpid(pid, 0)[1]
            code = os.waitstatus_to_exitcode(end)
            ends[ENDS.get(code, f"exit {code}")] += 1
    print(json.dumps({"ends": ends, "served": setproctitle.__spec__.origin == REPLACEMENT, "ps": lines}))


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of stdin, and end all that was started here."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def _fork(title: str, seconds: int) -> int:
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
        sys.excepthook(*sys.exc_info())
    os._exit(1)


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
