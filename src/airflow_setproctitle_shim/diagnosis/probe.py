"""Forks workers that set a title, without the shim and with it, in fresh interpreters, and tells how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import site
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from .. import OFF, REPLACEMENT, VARIABLE, setting
from . import environment, status

SECONDS = 30  # that a worker may take
ENDS = {**{-number: number.name for number in signal.Signals}, 0: "ok", -signal.SIGALRM: "hung"}


def probe(children: int) -> dict[str, Any]:
    """Return what `probe --json` prints. Raises OSError if workers cannot be forked."""
    value = setting()
    simulated = "" if environment.version("setproctitle") else "no setproctitle is installed here"
    simulated = simulated if sys.platform == "darwin" else "this is not a Mac"
    off = _run("off", children, bool(simulated))
    on = _run("auto" if value in OFF else value, children, bool(simulated))
    says, fix = _verdict(off, on, value, children)
    verdict = {"ok": says.startswith("OK"), "simulated": bool(simulated), "says": says, "fix": fix}
    return {**verdict, "why_simulated": simulated, "ps": on["ps"], "without": off, "with": on}


def _verdict(off: dict[str, Any], on: dict[str, Any], value: str, children: int) -> tuple[str, str]:
    """Return what the two runs show, and a line to copy where something is to be done."""
    titles = [f"probe: worker {number}" for number in range(1, children + 1)]
    if on["killed"] + on["ends"].get("ok", 0) < children or any(
        "exit" in end for end in off["ends"]
    ):
        return f"FAILED: workers ended by themselves, or hung. {on['stderr'] or off['stderr']}", ""
    if not on["served"]:
        why, fixes = status.why_skipped()
        says = f"NOT OK: the shim is not on here. {why}"
        return says, fixes[0] if fixes else f"{environment.COMMAND} status"
    if on["killed"]:
        return (
            f"NOT OK: {on['killed']} workers were killed with the shim.",
            f"{environment.COMMAND} doctor",
        )
    if value == "titles" and on["ps"] != titles:
        fix = environment.install(f"'{environment.DISTRIBUTION}[titles]'", "--upgrade")
        return "NOT OK: ps does not show the titles that were set.", fix
    if not off["killed"]:
        says = "NOT PROVED: no worker was killed without the shim, either. Try more of them."
        return says, f"{environment.COMMAND} probe -n {min(10 * children, 10_000)}"
    if value in OFF:
        return (
            f"NOT OK: the shim works, but {VARIABLE}={value} switches it off here.",
            f"unset {VARIABLE}",
        )
    return "OK: the shim works.", ""


def _run(value: str, children: int, simulate: bool) -> dict[str, Any]:
    """Return how the workers ended with AIRFLOW_SETPROCTITLE_SHIM at `value`. Raises OSError if it is not known."""
    given = json.dumps([children, SECONDS, value == "titles", simulate])
    stand_in = str(Path(__file__).parent.parent / "stand_in")
    paths = [stand_in] * simulate + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    pythonpath = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    # Workers end without a flush, so -u; and modules in the working directory must not be found, so cwd.
    done = subprocess.run(
        [sys.executable, "-u", "-W", "ignore", "-m", f"{__package__}.probe", given], cwd=os.sep, check=False,
        env={**os.environ, VARIABLE: value, "PYTHONPATH": pythonpath},
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    stderr = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if code := done.returncode:
        raise ChildProcessError(f"the workers' parent failed: {stderr or ENDS.get(code, code)}")
    *lines, last = map(str.strip, done.stdout.decode(errors="replace").splitlines())
    run = json.loads(last)
    ps = lines[-children:] if value == "titles" else []
    killed = sum(count for end, count in run["ends"].items() if end.startswith("SIG"))
    return {"children": children, "killed": killed, **run, "ps": ps, "stderr": stderr}


def _main(children: int, seconds: int, titles: bool, simulate: bool) -> None:
    """Get where an interpreter on a Mac is before its first fork, fork the workers, and print how they ended."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the workers at once, too.
    signal.alarm(
        2 * seconds
    )  # It ends, whatever hangs, and whatever became of those who wait for it.
    with contextlib.suppress(LookupError):
        path, is_read = environment.startup_file()
        if simulate and is_read:
            here, sys.platform = sys.platform, "darwin"
            site.addpackage(str(path.parent), path.name, set())
            sys.platform = here
    import setproctitle

    for _ in range(3):  # Real programs have threads.
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    ends = Counter[str]()
    for number in range(1, children + 1):
        signal.alarm(2 * seconds)
        ends[_fork(f"probe: worker {number}", seconds, titles)] += 1
        if "hung" in ends:
            break
    print(json.dumps({"ends": ends, "served": setproctitle.__spec__.origin == REPLACEMENT}))


def _fork(title: str, seconds: int, titles: bool) -> str:
    """Fork a worker that sets the title, and has ps print it where `titles` is true; return how it ended."""
    if pid := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return ENDS.get(code, f"exit {code}")
    try:
        signal.alarm(seconds)
        from setproctitle import getproctitle, setproctitle

        setproctitle(title)
        assert getproctitle() == title
        if titles:
            subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(os.getpid())], check=False)
        os._exit(0)
    except BaseException:  # noqa: BLE001  # A worker must not go on as the program that forked it.
        sys.excepthook(*sys.exc_info())
    os._exit(1)


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
