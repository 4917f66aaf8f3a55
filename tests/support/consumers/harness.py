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
from typing import NamedTuple

import measured
from filelock import FileLock

from support import environments
from support.environments import CACHE, SWITCH, Venv, clean_environ
from support.processes import in_session, running, wait_for


class Crashing(AssertionError):
    """The consumer's processes die, so that its work will not be done."""


class Failing(AssertionError):
    """The consumer has written that its work will not be done, for another reason."""


@dataclass(frozen=True)
class NativeCode:
    """What `import setproctitle` loads without the shim: it lies in `path`, which goes on PYTHONPATH.

    If it `tells`, it appends a line to the file $NATIVE_CODE_LOG when it is `loaded`, calls an Apple function
    (`called`), or kills the process (`killed`): process id, that word, and a name. The stand-in tells only
    the last. What is installed on a Mac tells nothing; its deaths are told by faulthandler.
    """

    name: str
    path: Path | None
    tells: bool


STAND_IN = NativeCode("stand-in", environments.STAND_IN, tells=True)
PROGRAMS = Path(__file__).parent / "programs"


# What becomes of a program on a Mac without the shim.
DIES = "dies"
NEEDS_NOTHING = "needs nothing"
FAILS_ANYWAY = "fails for another reason"


@dataclass(frozen=True)
class Consumer:
    """A program that uses setproctitle: what to install, and the work it must do.

    `does` says in a few words what its work is: what is missing on a Mac without the shim.
    `work` gets a Place, starts servers there, and returns when the work is done; it waits by
    Place.until() only, which ends the wait when what was waited for cannot come any more.
    """

    program: str
    version: str
    does: str
    requirements: Sequence[str]
    work: Callable[[Place], None]
    setup: str = ""  # an option, or what of the program runs
    group: str = DIES
    exclude_newer: str | None = None  # a date: what is newer is not installed
    # What users find in the log: of a death (b"" where nothing is logged of one), or of another failure.
    symptom: bytes = b""
    # So many deaths are counted; a run without the shim is given up then, if its work would take for ever.
    enough: int = 4
    gives_up: bool = True
    needs: Sequence[str] = ()  # programs of the system
    titles: Sequence[
        str
    ] = ()  # beginnings of titles that `ps` shows in titles mode when the work is done
    no_macos_code: str = ""  # why it is not run with setproctitle's macOS code
    note: str = ""  # what is to be published beside its figures
    alone: str = ""  # why nothing else may run beside it
    slow: bool = True

    @property
    def id(self) -> str:
        return " ".join(filter(None, [self.program, self.version, self.setup])).replace(" ", "-")


@dataclass
class Outcome:
    """What one run of a consumer came to.

    `native` are the lines that the native code wrote, `ps` the processes that ran when the work was done,
    `failure` why it was not done.
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
        self,
        venv: Venv,
        directory: Path,
        environ: dict[str, str],
        deaths_allowed: int | None,
        hopeless: bytes = b"",
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
        self._deaths_allowed = deaths_allowed
        self._hopeless = hopeless

    def put(self, program: str, into: str = ".") -> None:
        """Put one of the files in programs/ into the directory, or into one below it."""
        target = self.directory / into
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROGRAMS / program, target)

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

    def finish(self, *command: str, seconds: float = 300) -> None:
        """Run a command to its end, which must be a good one."""
        process = self.start(*command)
        self.until(f"{command} ends", lambda: process.poll() is not None, seconds)
        assert process.returncode == 0, f"{command} ended with {process.returncode}"

    def until(self, what: str, condition: Callable[[], object], seconds: float = 300) -> None:
        """Wait for a condition. Raises NotInTime at the deadline, Crashing or Failing if it cannot come about."""

        def holds() -> object:
            # A condition may wait long for a server whose processes die one after the other.
            answer = self._conditions.submit(condition)
            while not wait([answer], 0.1).done:
                self._check(what)
            self._check(what)
            return answer.result()

        wait_for(what, holds, seconds)

    def _check(self, what: str) -> None:
        deaths = self.deaths()
        if self._deaths_allowed is not None and deaths > self._deaths_allowed:
            raise Crashing(f"{deaths} processes died before: {what}")
        if self._hopeless and self._hopeless in self.log.read_bytes():
            raise Failing(f"{self._hopeless.decode()} was logged before: {what}")

    def end_daemons(self) -> None:
        """At the end, end what has left the sessions of what was started here: it has this place's HOME still."""
        import psutil  # Late: it does not load in PyPy, where no consumer needs this.

        def end() -> None:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("HOME") == str(self.directory):
                        process.kill()

        self.servers.callback(end)

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


def deaths_allowed(consumer: Consumer, shim: str) -> int | None:
    """Return how many processes may die before a run is given up; None for any number."""
    if shim != "off" or consumer.group == NEEDS_NOTHING:
        return 0
    return consumer.enough - 1 if consumer.gives_up else None


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
    hopeless = consumer.symptom if consumer.group == FAILS_ANYWAY else b""
    place = Place(venv, directory, environ, deaths_allowed(consumer, shim), hopeless)
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


class Row(NamedTuple):
    """What a consumer's runs came to, as docs/measured.json has it: the same in each run."""

    program: str
    version: str
    setup: str
    does: str
    group: str
    native: str
    deaths_before: int
    or_more: bool  # counted up to what is enough
    given_up: bool  # so it is not known whether the work would have been done
    work_before: bool
    deaths_after: int | None  # None: not run
    work_after: bool | None
    note: str

    @property
    def key(self) -> tuple[str, ...]:
        return self.program, self.version, self.setup, self.native


def row(consumer: Consumer, native: NativeCode, before: Outcome, after: Outcome | None) -> Row:
    """Return what is kept of a consumer's runs."""
    return Row(
        program=consumer.program,
        version=consumer.version,
        setup=consumer.setup,
        does=consumer.does,
        group=consumer.group,
        native=native.name,
        # How many more die while a run is being given up is chance.
        deaths_before=min(before.deaths, consumer.enough),
        or_more=before.deaths >= consumer.enough,
        given_up=before.failure.startswith(Crashing.__name__),
        work_before=before.done,
        deaths_after=after.deaths if after else None,
        work_after=after.done if after else None,
        note=consumer.note,
    )


def record(new: Row) -> None:
    """Put a row into docs/measured.json in the place of the older one; several processes may do so at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "measured.lock"):
        rows = {row.key: row for row in (Row(**row) for row in measured.read("consumers"))}
        rows[new.key] = new
        measured.write("consumers", [row._asdict() for row in rows.values()])
