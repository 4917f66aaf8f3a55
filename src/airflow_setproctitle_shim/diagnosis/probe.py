"""Forks children that set a title, without the shim and with it, and tells how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import VARIABLE
from . import metadata
from .state import COMMAND, DISTRIBUTION, install, site_directories, startup_file

STAND_IN = Path(__file__).parent.parent / "stand_in"
METHODS = ("fork", "forkserver")
AT_ONCE = 20
CHILD = f"{__package__}.probe_child"  # Not imported here: it loads multiprocessing.


class ProbeError(Exception):
    """The probe could not be made; the message says why and what to do."""


@dataclass
class Run:
    """How the children of one fresh interpreter ended."""

    setting: str  # of AIRFLOW_SETPROCTITLE_SHIM
    children: int
    served: bool  # `import setproctitle` gave the shim's module
    ends: dict[str, int]  # "ok", a signal's name, "hung" or "exit N" -> how many
    listing: list[str] = field(default_factory=list)  # lines of ps, in titles mode
    frames: list[str] = field(default_factory=list)  # the first crash's Python frames, innermost first
    said: str = ""  # the last line on stderr

    @property
    def lost(self) -> int:
        """How many children died by a signal."""
        return sum(count for end, count in self.ends.items() if end.startswith("SIG"))

    @property
    def odd(self) -> int:
        """How many ended otherwise than well or by a signal, which tells nothing of the shim."""
        return self.children - self.lost - self.ends.get("ok", 0)


@dataclass(frozen=True)
class Settings:
    """What the probe is to do. `simulate`: with the stand-in, and the startup file run as if this were macOS."""

    children: int
    timeout: float  # seconds, for each batch of children
    method: str  # of METHODS
    threads: int  # that run while the children are started
    titles: bool  # read the titles back with ps
    simulate: bool

    @property
    def startup_file(self) -> str | None:
        """The installed startup file, if it must and can be run by hand: where site would run it."""
        path, _ = (startup_file() if self.simulate else None) or (None, [])
        return str(path) if path and path.parent.resolve() in site_directories() else None


def probe(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> tuple[Run, Run]:
    """Return the runs without and with the shim. Raises ProbeError if something is missing or fails."""
    if settings.titles and shutil.which("ps") is None:
        raise ProbeError("there is no `ps` here to read titles with; install it, or leave out --titles")
    if settings.titles and metadata.installed("processtitle") is None:
        needed = install(f"'{DISTRIBUTION}[titles]'")
        raise ProbeError(f"processtitle is not installed here; try: {needed}")
    if not settings.simulate and metadata.installed("setproctitle") is None:
        raise ProbeError("setproctitle is not installed here; try: probe --simulate")
    progress(f"{settings.children} children without the shim")
    off = run("off", settings)
    progress(f"{settings.children} children with the shim")
    return off, run("titles" if settings.titles else "auto", settings)


def verdict(off: Run, on: Run) -> tuple[bool, str]:
    """Return whether the shim is on and every child lived, and what the two runs show."""
    if odd := off.odd + on.odd:
        said = f" ({on.said or off.said})" if on.said or off.said else ""
        return (
            False,
            f"The probe failed: {odd} ended neither well nor by a signal, which is not the shim's business{said}.",
        )
    if not on.served:
        return False, f"The shim is not on here. See why: {COMMAND} status"
    if on.lost:
        return False, "The shim did NOT save every child."
    if off.lost:
        return True, "The shim saved every child."
    return True, "No child died, with or without the shim: this run proves nothing."


def run(setting: str, settings: Settings) -> Run:
    """Return how the children ended with AIRFLOW_SETPROCTITLE_SHIM at `setting`."""
    given = json.dumps({**asdict(settings), "startup_file": settings.startup_file, "at_once": AT_ONCE})
    # Modules in the working directory are not found, as those of an installed program's users are not.
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    path = os.pathsep.join([str(STAND_IN)] * settings.simulate + paths)
    patience = 30 + 2 * settings.timeout * -(-settings.children // AT_ONCE)
    with _interpreter(
        {**os.environ, VARIABLE: setting, f"{VARIABLE}_PROBE": given, "PYTHONPATH": path}
    ) as process:
        try:
            output, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise ProbeError(f"the interpreter that forks the children hung for {patience:g} s") from None
    said = errors.strip().rpartition("\n")[2]
    if process.returncode:
        raise ProbeError(f"the interpreter that forks the children failed: {said or process.returncode}")
    return Run(setting, settings.children, said=said, **json.loads(output.splitlines()[-1]))


@contextlib.contextmanager
def _interpreter(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start the interpreter that forks the children, and leave no process of its session behind.

    It ends itself and its children once its standard input ends, which it does however this process ends.
    """

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    caught = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, leave)
    theirs, ours = os.pipe()
    command = [sys.executable, "-m", CHILD]
    pipes: dict[str, Any] = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        # In a session of its own: Ctrl-C reaches this process only.
        with subprocess.Popen(
            command, env=environ, cwd=os.path.abspath(os.sep), text=True, start_new_session=True, **pipes
        ) as process:
            os.close(theirs)
            try:
                yield process
            finally:
                os.close(ours)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                with contextlib.suppress(ProcessLookupError, PermissionError):  # Nobody is left.
                    os.killpg(process.pid, signal.SIGKILL)
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
