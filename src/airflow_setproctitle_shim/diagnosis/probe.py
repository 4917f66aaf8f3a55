"""Forks children that set a title, without the shim and with it, and tells how they ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .. import VARIABLE
from . import probe_child
from .environment import DISTRIBUTION, installed

STAND_IN = Path(__file__).parent.parent / "stand_in"
METHODS = ("fork", "forkserver", "spawn")


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

    @property
    def lost(self) -> int:
        """How many children did not end well."""
        return self.children - self.ends.get("ok", 0)


@dataclass(frozen=True)
class Settings:
    """What the probe is to do. `simulate`: with the stand-in and as if the startup file ran on macOS."""

    children: int
    timeout: float  # seconds, for each batch of children
    method: str  # of METHODS
    threads: int  # that run while the children are started
    titles: bool  # read the titles back with ps
    simulate: bool


def probe(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> tuple[Run, Run]:
    """Return the runs without and with the shim. Raises ProbeError if something is missing or fails."""
    if settings.titles and shutil.which("ps") is None:
        raise ProbeError("there is no `ps` here to read titles with; install it, or leave out --titles")
    if settings.titles and installed("processtitle") is None:
        raise ProbeError(f"processtitle is not installed here; try: pip install '{DISTRIBUTION}[titles]'")
    if not settings.simulate and installed("setproctitle") is None:
        raise ProbeError("setproctitle is not installed here; try: probe --simulate")
    progress(f"{settings.children} children without the shim")
    off = run("off", settings)
    progress(f"{settings.children} children with the shim")
    return off, run("titles" if settings.titles else "auto", settings)


def run(setting: str, settings: Settings) -> Run:
    """Return how the children ended with AIRFLOW_SETPROCTITLE_SHIM at `setting`."""
    environ = {**os.environ, VARIABLE: setting, probe_child.VARIABLE: json.dumps(asdict(settings))}
    if settings.simulate:
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(STAND_IN), os.environ.get("PYTHONPATH")]))
    patience = 30 + 2 * settings.timeout * -(-settings.children // probe_child.AT_ONCE)
    command = [sys.executable, "-m", probe_child.__name__]
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=patience, check=True
        )
    except subprocess.TimeoutExpired:
        return Run(setting, settings.children, False, {"hung": settings.children})
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        raise ProbeError(f"the interpreter that should fork the children failed: {last}") from error
    return Run(setting, settings.children, **json.loads(done.stdout.splitlines()[-1]))
