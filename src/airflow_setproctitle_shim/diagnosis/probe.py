"""Forks children that set a title, without the shim and with it, and tells how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any

from .. import VARIABLE
from .state import COMMAND, DISTRIBUTION, install, is_read, startup_file, version

STAND_IN = Path(__file__).parent.parent / "stand_in"
AT_ONCE = 20  # children


@dataclass
class Run:
    """How the children of one fresh interpreter ended."""

    setting: str  # of AIRFLOW_SETPROCTITLE_SHIM
    children: int
    served: bool  # `import setproctitle` gave the shim's module
    startup_file: bool  # the one that is installed was run, as site would
    ends: dict[str, int]  # "ok", a signal's name, "hung" or "exit N" -> how many
    listing: list[str]  # lines of ps, in titles mode

    @property
    def lost(self) -> int:
        """How many children died by a signal."""
        return sum(count for end, count in self.ends.items() if end.startswith("SIG"))

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()) if end != "ok")
        return f"{self.lost} of {self.children} children lost{f' ({ends})' if ends else ''}"


def probe(children: int, timeout: int, threads: int, titles: bool, simulate: bool) -> tuple[Run, Run]:
    """Return the runs without and with the shim. `timeout`: seconds for 20 children; `threads`: how many run meanwhile;
    `titles`: read them back with ps; `simulate`: with the stand-in, the startup file run as if this were macOS. Raises
    OSError if something is missing or fails."""
    if titles and not (shutil.which("ps") and version("processtitle")):
        needed = install(f"'{DISTRIBUTION}[titles]'", "--upgrade")
        raise FileNotFoundError(f"--titles needs the program ps and processtitle; try: {needed}")
    if not simulate and not version("setproctitle"):
        raise FileNotFoundError("setproctitle is not installed here; try: probe --simulate")
    given = {"timeout": timeout, "threads": threads, "titles": titles, "simulate": simulate}
    return run("off", children, given), run("titles" if titles else "auto", children, given)


def verdict(off: Run, on: Run) -> tuple[bool, str]:
    """Return whether the shim is on and every child lived, and what the two runs show."""
    if odd := sum(run.children - run.lost - run.ends.get("ok", 0) for run in (off, on)):
        return False, f"The probe failed: {odd} ended neither well nor by a signal, so not by setproctitle."
    if not on.served:
        return False, f"The shim is not on here. See why: {COMMAND} status"
    if on.lost:
        return False, "The shim did NOT save every child."
    if off.lost:
        return True, "The shim saved every child."
    return True, "No child died, with or without the shim: this run proves nothing."


def run(setting: str, children: int, settings: dict[str, Any]) -> Run:
    """Return how the children ended with AIRFLOW_SETPROCTITLE_SHIM at `setting`; the settings are probe()'s."""
    path, _ = startup_file()
    file = str(path) if settings["simulate"] and path and is_read(path.parent) else ""
    given = json.dumps({**settings, "file": file, "children": children, "at_once": AT_ONCE})
    command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.probe_child", given]
    paths = [str(STAND_IN)] * settings["simulate"] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environ = {**os.environ, VARIABLE: setting}
    environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    patience = 30 + 2 * settings["timeout"] * -(-children // AT_ONCE)
    # Modules in the working directory are not found, as those of an installed program's users are not. In a
    # session of its own, Ctrl-C reaches this process only, and what is left can be killed as a group.
    with Popen(
        command, env=environ, cwd=os.sep, start_new_session=True, stdin=DEVNULL, stdout=PIPE, text=True
    ) as process:
        try:
            *listing, result = process.communicate(timeout=patience)[0].splitlines() or [""]
        except TimeoutExpired:
            raise ChildProcessError(f"the interpreter that forks hung for {patience:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # Nobody is left.
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise ChildProcessError("the interpreter that forks the children failed; what it said stands above")
    tested = bool(file) or not settings["simulate"]
    return Run(setting, children, startup_file=tested, listing=listing, **json.loads(result))
