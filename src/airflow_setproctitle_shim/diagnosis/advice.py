"""What helps: sentences, and lines to copy with a word about them."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from .environment import COMMAND, version

REPORT, DUMP, LINE = "report", "dump", "line"  # what can be read, and how sure it makes


class Help(NamedTuple):
    """Something to do."""

    line: str  # a sentence, which ends with a full stop, or a line to copy
    about: str = ""  # a word about a line to copy
    gives: str = ""  # what it brings to be read: no news for who has brought that
    launchd: str = ""  # the same line for what `export` does not reach

    def __str__(self) -> str:
        return f"{self.line}\n{self.about}" if self.about else self.line


def variable(name: str, value: str, about: str) -> Help:
    """Return the advice to set a variable."""
    quoted = shlex.quote(value)
    return Help(f"export {name}={quoted}", about, launchd=f"launchctl setenv {name} {quoted}")


RESTART = Help("Stop and restart what has been running since before the shim was installed.")
STATUS = Help("Run `status` with the Python of the program that died.")
SPAWN = Help(
    "Start workers by spawn or exec, not by fork, where the program lets you: "
    'multiprocessing.set_start_method("spawn"), celery worker --pool threads, '
    "rq worker -w rq.SpawnWorker (from RQ 2.2 on)."
)
NO_FORK = Help(
    "Do not fork there: subprocess starts a program by posix_spawn if it is given a full path "
    "and close_fds=False, and neither cwd, preexec_fn nor start_new_session."
)
UPGRADE = Help(
    "If it was Airflow's task, upgrade to Airflow 3.2.2 or later; for its other processes see "
    "https://github.com/apache/airflow/issues/69008."
)
ASK = Help("Ask the makers of what is named here: the report tells them where it died.")
MEMORY = Help(
    "Give it more memory (Docker has a limit of its own), run fewer workers, or give it more time."
)
NO_PROXY = variable(
    "NO_PROXY",
    "*",
    "Python then does not ask macOS for its proxies. If you need a proxy, do not set this: "
    "name the proxy in http_proxy and https_proxy, which has the same effect.",
)
NO_KERBEROS = variable(
    "PGGSSENCMODE", "disable", "PostgreSQL's library then does not ask macOS for Kerberos."
)
NO_CHECK = variable(
    "OBJC_DISABLE_INITIALIZE_FORK_SAFETY",
    "YES",
    "Objective-C then does not end forked processes. Before Python starts: later is too late.",
)
ONE_THREAD = variable(
    "VECLIB_MAXIMUM_THREADS", "1", "Apple's Accelerate then does without threads of its own."
)
ONE_OPENMP_THREAD = variable("OMP_NUM_THREADS", "1", "OpenMP's libraries (torch) do so, too.")
FAULTHANDLER = variable(
    "PYTHONFAULTHANDLER", "1", "Python then prints where it was when it died."
)._replace(gives=DUMP, launchd="")
REPORTS = Help(
    f"{COMMAND} doctor",
    "On the Mac where it died: that reads macOS's own crash reports, which tell more. One that "
    "a window shows can be copied: pbpaste | airflow-setproctitle-shim doctor -",
    gives=REPORT,
)
ONE_SECRET = Help(
    "Give all parts of Airflow one secret, AIRFLOW__API_AUTH__JWT_SECRET or jwt_secret in "
    "airflow.cfg's [api_auth], and compare their clocks."
)
OLDER_BILLIARD = Help(
    "python -m pip install 'billiard<4.3'",
    "With the shim. Or set FORKED_BY_MULTIPROCESSING=1 for the worker alone.",
)
# In the order of what helped in public reports.
TRY = (REPORTS, RESTART, FAULTHANDLER, NO_PROXY, NO_KERBEROS, NO_CHECK, SPAWN)


def save() -> Help:
    """Return the advice to keep what a program prints."""
    command = "airflow standalone" if version("apache-airflow") else "YOUR COMMAND"
    return Help(
        f"{command} > out.log 2>&1",
        "Start it again so, or as you do, save what it prints, and have `doctor` read that.",
        gives=DUMP,
    )


def lines(helps: tuple[Help, ...], read: set[str]) -> list[str]:
    """Return the advice without what only brings what was `read` already; and, behind the first
    variable, the line that sets it where `export` does not reach."""
    told, reaches_all = list[str](), False
    for help_ in helps:
        if help_.gives in read:
            continue
        told.append(str(help_))
        if help_.launchd and not reaches_all:
            reaches_all = True
            about = "The same (others likewise) for what launchd, the Dock or an IDE starts anew."
            told.append(f"{help_.launchd}\n{about}")
    return told
