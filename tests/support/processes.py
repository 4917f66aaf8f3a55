"""Starting, watching and stopping the processes of a test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


class NotInTime(AssertionError):
    """What was waited for did not come about before the deadline."""


def wait_for(what: str, condition: Callable[[], Result], seconds: float) -> Result:
    """Return the first true result of `condition`; OSError counts as "not yet". Raises NotInTime."""
    deadline, pause = time.monotonic() + seconds, 0.1
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except OSError as error:
            last = error
        time.sleep(pause)
        pause = min(1.1 * pause, 1)  # An answer takes a server's time from its work.
    raise NotInTime(f"{what}: not within {seconds:.0f} s (last: {last!r})")


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environ: dict[str, str],
    cwd: Path | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in a session of its own, output appended to `log`; end it and all it started."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environ,
            cwd=cwd or log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
        )
    try:
        yield process
    finally:
        _end_session(process)


def in_session(session: int) -> list[int]:
    """The processes of a session that run, daemons that have left its process groups among them."""
    found = []
    for pid in map(int, subprocess.check_output(["ps", "-A", "-o", "pid="]).split()):
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session:
                found.append(pid)
    return found


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """Ask the session to end, then make it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for pid in in_session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)
