"""Forks children that set a title, without the shim and with it, and tells how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import VARIABLE
from . import metadata
from .state import COMMAND, DISTRIBUTION, install, site_directories, startup_file

STAND_IN = Path(__file__).parent.parent / "stand_in"
METHODS = ("fork", "forkserver")
AT_ONCE = 20  # children


class ProbeError(Exception):
    """The probe could not be made; the message says why and what to do."""


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


def probe(
    children: int, timeout: float, method: str, threads: int, titles: bool, simulate: bool
) -> tuple[Run, Run]:
    """Return the runs without and with the shim. `timeout`: seconds for 20 children; `method`: of METHODS; `threads`:
    how many run meanwhile; `titles`: read them back with ps; `simulate`: with the stand-in, the startup file run as if
    this were macOS. Raises ProbeError if something is missing or fails."""
    if titles and shutil.which("ps") is None:
        raise ProbeError("there is no `ps` here to read titles with; install it, or leave out --titles")
    if titles and not metadata.version("processtitle"):
        needed = install(f"'{DISTRIBUTION}[titles]'")
        raise ProbeError(f"processtitle is not installed here; try: {needed}")
    if not simulate and not metadata.version("setproctitle"):
        raise ProbeError("setproctitle is not installed here; try: probe --simulate")
    given = {"timeout": timeout, "method": method, "threads": threads, "titles": titles, "simulate": simulate}
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
    file = str(path) if settings["simulate"] and path and path.parent.resolve() in site_directories() else ""
    given = {**settings, "file": file, "children": children, "at_once": AT_ONCE}
    # Modules in the working directory are not found, as those of an installed program's users are not.
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environ = {**os.environ, VARIABLE: setting, f"{VARIABLE}_PROBE": json.dumps(given)}
    environ["PYTHONPATH"] = os.pathsep.join([str(STAND_IN)] * settings["simulate"] + paths)
    patience = 30 + 2 * settings["timeout"] * -(-children // AT_ONCE)
    with _interpreter(environ) as process:
        try:
            output, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise ProbeError(f"the interpreter that forks the children hung for {patience:g} s") from None
    if process.returncode:
        raise ProbeError("the interpreter that forks the children failed; what it said stands above")
    *listing, result = output.splitlines()
    tested = bool(file) or not settings["simulate"]
    return Run(setting, children, startup_file=tested, listing=listing, **json.loads(result))


@contextlib.contextmanager
def _interpreter(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start the interpreter that forks the children, and leave no process of its session behind. It ends itself and
    its children once its standard input ends, which it does however this process ends."""
    theirs, ours = os.pipe()
    command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.probe_child"]
    # In a session of its own: Ctrl-C reaches this process only.
    where: dict[str, Any] = {"env": environ, "cwd": os.path.abspath(os.sep), "start_new_session": True}
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True, **where)
    os.close(theirs)
    with process:
        try:
            yield process
        finally:
            os.close(ours)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            with contextlib.suppress(ProcessLookupError, PermissionError):  # Nobody is left.
                os.killpg(process.pid, signal.SIGKILL)
