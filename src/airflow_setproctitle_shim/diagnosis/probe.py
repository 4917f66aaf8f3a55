"""Forks workers that set a title, without the shim and with it, and tells how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import OFF, VARIABLE, setting
from . import packages
from .status import why_skipped

STAND_IN = Path(__file__).parent.parent / "stand_in"
AT_ONCE, SECONDS = 20, 30  # workers, and how long they may take


def probe(children: int) -> dict[str, Any]:
    """Fork so many workers without the shim, and so many with it; return what `probe --json` prints.

    Raises OSError if that cannot be done.
    """
    simulated = "" if packages.version("setproctitle") else "no setproctitle is installed here"
    simulated = simulated if sys.platform == "darwin" else "this is not a Mac"
    value = setting()
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
        why, fix = why_skipped()
        return f"NOT OK: the shim is not on here. {why}", fix or f"{packages.COMMAND} status"
    if on["killed"]:
        return f"NOT OK: {on['killed']} workers were killed with the shim.", f"{packages.COMMAND} doctor"
    if value == "titles" and sorted(line.partition(" ")[2] for line in on["ps"]) != titles:
        fix = packages.install(f"'{packages.DISTRIBUTION}[titles]'", "--upgrade")
        return "NOT OK: ps does not show the titles that were set.", fix
    if off["ends"] == {"ok": children}:
        more = f"{packages.COMMAND} probe -n {min(10 * children, 10_000)}"
        return "NOT PROVED: no worker was killed without the shim, either. Try more of them.", more
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
    given = [children, AT_ONCE, SECONDS, value == "titles", file]
    paths = [str(STAND_IN)] * simulate + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environ = {**os.environ, VARIABLE: value}
    environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.probe_child", json.dumps(given)]
    # The pipe tells the program that we are gone, however we end. In a session of its own, what is left can be
    # killed as a group. Modules in the working directory are not found, as a program's users' are not.
    alive, ours = os.pipe()
    streams: dict[str, Any] = {"stdin": alive, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environ, cwd=os.sep, start_new_session=True, **streams) as process:
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
