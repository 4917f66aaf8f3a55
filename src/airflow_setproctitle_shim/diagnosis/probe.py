"""Forks workers that set a title, without the shim and with it, and tells how they ended.

`probe()` runs in the command line's process. It starts this module as a program, in a fresh
interpreter, once without the shim and once with it. That forks the workers one by one and sends
how they ended over a socket of its own, as stdout and stderr are anybody's.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import site
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .. import OFF, REPLACEMENT, VARIABLE, setting
from . import environment, status

SECONDS = 30  # that a worker may take
SIGNALS = {-number: number.name for number in signal.Signals}
WORKS = "OK: the shim works."
WORKER = "airflow-setproctitle-shim probe"  # the thread's name in workers that are to die


def caused(thread: str) -> bool:
    """Return whether a crash report of macOS is of a worker that `probe` made die on purpose.

    `thread` is what the report says of the thread that crashed: its "name" in the JSON of a file
    (`threads[faultingThread].get("name", "")`; there is none where nobody named it), or the whole
    line above its frames in a text ("Thread 0 Crashed:: NAME  Dispatch queue: ..."). A worker
    names its thread before it sets a title, unless the shim serves setproctitle: a death with the
    shim counts. Such a report tells nothing of the user's programs.

    That macOS's reports have the names that pthread_setname_np() gives to a main thread can be
    read in published ones ("Thread 0 Crashed:: CrBrowserMain"). That they have it of a child that
    died after fork waits for a Mac.
    """
    return WORKER in thread


class Run(NamedTuple):
    """How the workers ended that one interpreter forked."""

    children: int  # that were to be forked; the first one that hangs is the last one
    ends: dict[str, int]  # how many ended "ok", by which signal, "hung", or by "exit N"
    served: bool  # whether `import setproctitle` gave the shim's
    named: bool  # whether macOS's reports of those that died have the name WORKER
    ps: list[str]  # in titles mode, what ps showed of each
    stderr: str  # the last line there

    @property
    def killed(self) -> int:
        """How many were ended by a signal."""
        return sum(count for end, count in self.ends.items() if end in SIGNALS.values())

    @property
    def hung(self) -> int:
        """How many did not end by themselves: 0 or 1."""
        return self.ends.get("hung", 0)

    @property
    def failed(self) -> int:
        """How many ended by an error of their own."""
        return sum(self.ends.values()) - self.ends.get("ok", 0) - self.killed - self.hung

    def as_json(self) -> dict[str, Any]:
        """Return what `probe --json` prints of this run."""
        return {"killed": self.killed, **self._asdict()}


class Probe(NamedTuple):
    """What the two runs show."""

    ok: bool
    says: str
    fixes: tuple[str, ...]  # lines to copy
    note: str  # a sentence about what the probe leaves behind, "" if that is nothing
    why_simulated: str  # "" if the real setproctitle was called
    without_shim: Run
    with_shim: Run

    def as_json(self) -> dict[str, Any]:
        """Return what `probe --json` prints; `fix` is the first of `fixes`."""
        return {
            "ok": self.ok,
            "simulated": bool(self.why_simulated),
            "says": self.says,
            "fix": self.fixes[0] if self.fixes else "",
            "fixes": self.fixes,
            "note": self.note,
            "why_simulated": self.why_simulated,
            "ps": self.with_shim.ps,
            "without": self.without_shim.as_json(),
            "with": self.with_shim.as_json(),
        }


def probe(children: int) -> Probe:
    """Fork that many workers, twice, and return what came of it.

    Raises OSError if they cannot be forked.
    """
    value = setting()
    why_simulated = (
        "" if environment.version("setproctitle") else "no setproctitle is installed here"
    )
    if sys.platform != "darwin":
        why_simulated = "this is not a Mac"
    without_shim = _run("off", children, bool(why_simulated))
    with_shim = _run("auto" if value in OFF else value, children, bool(why_simulated))
    says, fixes = _verdict(without_shim, with_shim, value)
    return Probe(
        ok=says == WORKS,
        says=says,
        fixes=fixes,
        note="" if why_simulated else _note(without_shim),
        why_simulated=why_simulated,
        without_shim=without_shim,
        with_shim=with_shim,
    )


def _verdict(without_shim: Run, with_shim: Run, value: str) -> tuple[str, tuple[str, ...]]:
    """Return what the runs show, by the setting `value`, and lines to copy that mend it."""
    if failed := without_shim.failed + with_shim.failed:
        why = without_shim.stderr or with_shim.stderr
        return f"FAILED: {_workers(failed)} ended by an error of their own: {why}", ()
    if not with_shim.served:
        skipped = status.why_skipped()
        says = f"NOT OK: the shim is not on here: {skipped.why or 'no reason was found'}."
        return says, skipped.fixes or (f"{environment.COMMAND} status",)
    if with_shim.killed:
        says = f"NOT OK: with the shim {_workers(with_shim.killed)} died."
        return says, (f"{environment.COMMAND} doctor",)
    if with_shim.hung:
        says = f"NOT OK: with the shim a worker hung, for {SECONDS} seconds."
        return says, (f"{environment.COMMAND} status --json",)
    if value == "titles" and with_shim.ps != [_title(n + 1) for n in range(with_shim.children)]:
        fix = environment.install("processtitle>=1.3")
        return "NOT OK: ps does not show the titles that were set.", (fix,)
    if not without_shim.killed + without_shim.hung:
        says = "NOT PROVED: no worker died or hung without the shim, either. Try more of them."
        return says, (f"{environment.COMMAND} probe -n {min(10 * with_shim.children, 10_000)}",)
    if value in OFF:
        says = f"NOT OK: the shim works, but {VARIABLE}={value} switches it off here."
        return says, (f"unset {VARIABLE}",)
    return WORKS, ()


def _note(without_shim: Run) -> str:
    """Return what is to be said of crash reports that macOS may write."""
    if not without_shim.killed:
        return ""
    does = "does not count them" if without_shim.named else "counts them, as they have no name"
    died = _workers(without_shim.killed)
    return f"macOS may write crash reports of the {died} that died without the shim. doctor {does}."


def _workers(number: int) -> str:
    return f"{number} worker{'s' * (number > 1)}"


def _title(number: int) -> str:
    return f"probe: worker {number}"


def _run(value: str, children: int, simulate: bool) -> Run:
    """Run this module with AIRFLOW_SETPROCTITLE_SHIM at `value` and return what it sends.

    Raises OSError if it sends nothing.
    """
    stand_in = str(Path(__file__).parent.parent / "stand_in")
    paths = [stand_in] * simulate + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    pythonpath = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    ours, theirs = socket.socketpair()
    with ours, ThreadPoolExecutor(1) as pool:
        with theirs:
            given = [children, SECONDS, value == "titles", simulate, theirs.fileno()]
            # Workers end without a flush, and Python warns of a fork beside threads, where their
            # errors are to be read.
            program = [sys.executable, "-u", "-W", "ignore", "-m", f"{__package__}.probe"]
            process = subprocess.Popen(
                [*program, json.dumps(given)],
                # Modules in the working directory must not be found.
                cwd=os.sep,
                env={**os.environ, VARIABLE: value, "PYTHONPATH": pythonpath},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        try:
            sent = pool.submit(ours.makefile("rb").readline)
            complaints = process.communicate()[1].decode(errors="replace")
        finally:
            # It notices, and ends itself and its workers.
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_WR)
    stderr = complaints.strip().rpartition("\n")[2]
    if not sent.result():
        code = process.returncode
        why = (
            "it hung"
            if code == -signal.SIGALRM
            else stderr or SIGNALS.get(code) or f"exit status {code}"
        )
        raise ChildProcessError(f"the workers' parent failed: {why}")
    return Run(children=children, stderr=stderr, **json.loads(sent.result()))


def _main(children: int, seconds: int, titles: bool, simulate: bool, link: int) -> None:
    """Get where an interpreter on a Mac is before its first fork, fork, and send how it went."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(2 * seconds)  # Importing setproctitle, or fork(), may hang here, too.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.setpgrp()
    parent = socket.socket(fileno=link)
    parent.set_inheritable(False)
    # This is the other thread, too, that real programs have when they fork.
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    if simulate:
        _run_startup_file_as_on_a_mac()
    import setproctitle

    served = setproctitle.__spec__.origin == REPLACEMENT
    mark = None if served else _namer()
    ends, ps = Counter[str](), list[str]()
    for number in range(1, children + 1):
        signal.alarm(2 * seconds)
        end, shown = _fork(_title(number), seconds, titles, mark)
        ends[end] += 1
        ps += shown
        if end == "hung":
            break
    run = {"ends": ends, "served": served, "named": mark is not None, "ps": ps}
    parent.sendall(json.dumps(run).encode() + b"\n")


def _end_with(parent: socket.socket) -> None:
    """End this process and its workers when the one that started it is gone, however it went."""
    parent.recv(1)  # Nothing is ever sent.
    os.kill(0, signal.SIGKILL)


def _run_startup_file_as_on_a_mac() -> None:
    """Run the startup file that is installed, if Python reads it where it lies."""
    with contextlib.suppress(LookupError):
        path, is_read = environment.startup_file()
        if is_read:
            here, sys.platform = sys.platform, "darwin"
            site.addpackage(str(path.parent), path.name, set())
            sys.platform = here


def _namer() -> Callable[[], object] | None:
    """Return what gives the calling thread the name WORKER, None if that cannot be done here."""
    with contextlib.suppress(Exception):  # ctypes is missing or forbidden in some places.
        import ctypes

        libc = ctypes.CDLL(None)
        name = ctypes.c_char_p(WORKER.encode())
        if hasattr(libc, "prctl"):  # Linux, whose pthread_setname_np() takes something else.
            return lambda: libc.prctl(15, name, 0, 0, 0)  # PR_SET_NAME
        set_name = libc.pthread_setname_np
        return lambda: set_name(name)
    return None


def _fork(
    title: str, seconds: int, titles: bool, mark: Callable[[], object] | None
) -> tuple[str, list[str]]:
    """Fork a worker that sets the title; return how it ended, and what ps shows with `titles`."""
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        _work(title, titles, mark, writes)
    os.close(writes)
    with open(reads, "rb") as pipe:
        # It can be read when the worker has ended. No alarm: a child can hang inside fork().
        hung = not select.select([pipe], [], [], seconds)[0]
        if hung:
            os.kill(pid, signal.SIGKILL)
        shown = pipe.read().decode(errors="replace").splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    end = SIGNALS.get(code) or (f"exit {code}" if code else "ok")
    return ("hung" if hung else end), shown


def _work(title: str, titles: bool, mark: Callable[[], object] | None, writes: int) -> NoReturn:
    """Do what a worker does."""
    try:
        if mark:
            mark()
        from setproctitle import getproctitle, setproctitle

        setproctitle(title)
        if getproctitle() != title:
            raise ValueError(f"getproctitle() returned {getproctitle()!r} instead of {title!r}")
        if titles:
            ps = ["ps", "-ww", "-o", "args=", "-p", str(os.getpid())]
            shown = subprocess.run(ps, check=False, stdout=subprocess.PIPE).stdout.strip()
            os.write(writes, shown + b"\n")
        os._exit(0)
    except BaseException:  # noqa: BLE001  # A worker must not go on as the program that forked it.
        sys.excepthook(*sys.exc_info())
    os._exit(1)


if __name__ == "__main__":
    exit_status = 0
    try:
        _main(*json.loads(sys.argv[1]))
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        exit_status = 1
    # Nothing that others do at exit can hold this up.
    os._exit(exit_status)
