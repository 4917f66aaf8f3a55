"""Runs a real program without the shim and with it, and counts its processes' deaths by SIGSEGV.

A consumer is a declaration, see Consumer; test_consumers.py runs each one's before and after.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import measured
from filelock import FileLock

from support import environments
from support.environments import CACHE, SWITCH, Venv, clean_environ
from support.processes import in_session, running, wait_for


class Crashing(AssertionError):
    """The consumer's processes die, so that its work will not be done."""


@dataclass(frozen=True)
class NativeCode:
    """What `import setproctitle` loads without the shim: it lies in `path`, which goes on PYTHONPATH.

    If it `tells`, it appends a line to the file $NATIVE_CODE_LOG when it is `loaded`, calls an Apple function
    (`called`), or kills the process (`killed`): process id, that word, and a name. The stand-in and what is
    installed on a Mac do not; their deaths are told by faulthandler.
    """

    name: str
    path: Path | None
    tells: bool


STAND_IN = NativeCode("stand-in", environments.STAND_IN, tells=False)


@dataclass(frozen=True)
class Consumer:
    """A program that forks and sets titles: what to install, and the work it must do.

    `work` gets a Place, starts servers there, and returns when the work is done; it waits by
    Place.until() only, so that a run is given up early when `enough` processes have died. `symptom` is
    what users find in the log, b"" where the program logs nothing of a death. `titles` are beginnings
    of titles that `ps` shows in titles mode when the work is done.
    """

    name: str
    version: str
    requirements: Sequence[str]
    work: Callable[[Place], None]
    exclude_newer: str | None = None
    symptom: bytes = b""
    enough: int = 4
    needs: Sequence[str] = ()  # programs of the system
    titles: Sequence[str] = ()
    slow: bool = True

    @property
    def id(self) -> str:
        return f"{self.name}-{self.version}".replace(" ", "-")


@dataclass
class Outcome:
    """What one run of a consumer came to.

    `native` are the lines that the native code wrote, `ps` the processes that ran when the work was done.
    """

    deaths: int
    done: bool
    log: bytes
    native: list[str]
    ps: list[str]
    failure: str = ""


class Place:
    """Where a consumer runs: its environment, a directory with its files and one log."""

    def __init__(
        self, venv: Venv, directory: Path, environ: dict[str, str], give_up_after: int
    ) -> None:
        self.venv = venv
        self.directory = directory
        self.log = directory / "log.txt"
        self.log.touch()
        self.native_log = directory / "native-code.txt"
        self.native_log.touch(0o666)
        self.environ = {**environ, "NATIVE_CODE_LOG": str(self.native_log)}
        self.servers = contextlib.ExitStack()
        self._conditions = self.servers.enter_context(ThreadPoolExecutor(8))
        self.processes: list[subprocess.Popen[bytes]] = []
        self._give_up_after = give_up_after

    def write(self, name: str, text: str) -> Path:
        """Write a file into the directory and return its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, *command: str, user: str | None = None) -> subprocess.Popen[bytes]:
        """Start a server; its first word is a program of the environment unless it is a path."""
        path = command[0] if "/" in command[0] else str(self.venv.path / "bin" / command[0])
        # PostgreSQL may not look into a directory of root's.
        directory = Path("/") if user else self.directory
        process = self.servers.enter_context(
            running([path, *command[1:]], self.log, self.environ, directory, user=user)
        )
        self.processes.append(process)
        return process

    def finish(self, *command: str) -> None:
        """Run a command to its end, which must be a good one."""
        process = self.start(*command)
        self.until(f"{command} ends", lambda: process.poll() is not None)
        assert process.returncode == 0, f"{command} ended with {process.returncode}"

    def until(self, what: str, condition: Callable[[], object], seconds: float = 300) -> None:
        """Wait for a condition. Raises Crashing once enough processes have died, NotInTime at the deadline."""

        def holds() -> object:
            # A condition may wait long for a server whose processes die one after the other.
            answer = self._conditions.submit(condition)
            while not wait([answer], 0.1).done:
                self._check_deaths(what)
            self._check_deaths(what)
            return answer.result()

        wait_for(what, holds, seconds)

    def _check_deaths(self, what: str) -> None:
        if (deaths := self.deaths()) >= self._give_up_after:
            raise Crashing(f"{deaths} processes died before: {what}")

    def native(self) -> list[str]:
        """The lines that the native code has written so far."""
        return self.native_log.read_text().splitlines()

    def ps(self) -> list[str]:
        """How `ps` shows the processes that were started here and those that they started."""
        pids = [str(pid) for process in self.processes for pid in in_session(process.pid)]
        command = ["ps", "-ww", "-o", "args=", "-p", ",".join(pids)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False
        ).stdout.splitlines()

    def deaths(self) -> int:
        """How many processes have died by SIGSEGV so far."""
        if "PYTHONFAULTHANDLER" in self.environ:
            return self.log.read_bytes().count(b"Fatal Python error: Segmentation fault")
        return sum(line.split()[1] == "killed" for line in self.native())


def get(url: str, seconds: float = 10) -> bytes:
    """GET a page of a server started here. Raises OSError (URLError is one) when it cannot be had."""
    with urllib.request.urlopen(url, timeout=seconds) as response:
        body: bytes = response.read()
        return body


def run(
    consumer: Consumer, venv: Venv, directory: Path, shim: str, native: NativeCode = STAND_IN
) -> Outcome:
    """Run the consumer with AIRFLOW_SETPROCTITLE_SHIM at `shim`. The directory is made anew."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    environ = clean_environ(
        **{
            "PATH": f"{venv.path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            **({"PYTHONPATH": str(native.path)} if native.path else {}),
            **({} if native.tells else {"PYTHONFAULTHANDLER": "1"}),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(directory),
            SWITCH: shim,
        }
    )
    place = Place(venv, directory, environ, give_up_after=consumer.enough if shim == "off" else 1)
    failure = ""
    with place.servers:
        try:
            consumer.work(place)
        except AssertionError as error:
            failure = f"{type(error).__name__}: {error}"
        ps = place.ps()
    return Outcome(
        deaths=place.deaths(),
        done=not failure,
        log=place.log.read_bytes(),
        native=place.native(),
        ps=ps,
        failure=failure,
    )


def record(consumer: Consumer, native: NativeCode, before: Outcome, after: Outcome) -> None:
    """Keep what the consumer's runs came to, for tools/pages.py; several processes may do so at once."""
    row = {
        "name": consumer.name,
        "version": consumer.version,
        "native": native.name,
        # How many more die while a run is being given up is chance.
        "before": min(before.deaths, consumer.enough),
        "given up": before.deaths >= consumer.enough,
        "done before": before.done,
        "after": after.deaths,
        "done": after.done,
    }
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "measured.lock"):
        measured.write("consumers", {**measured.read("consumers"), consumer.id: row})
