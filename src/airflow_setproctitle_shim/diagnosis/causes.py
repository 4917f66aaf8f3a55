"""The table: what kills Python's forked processes on macOS, how it shows, and what helps."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

RESTART = "Stop and restart what has been running since before the shim was installed."
STATUS = "Run `status` with the Python of the program that died."
SPAWN = "Start workers by spawn or exec instead of fork, where the program lets you."
UPGRADE = "If it was Airflow, upgrade it: docs/troubleshooting.md names the versions."
CONSOLE = "Open the report in Console, and ask the makers of the library at the top of the crashed thread."
# The second line is a word about the first, which is to be copied.
FAULTHANDLER = "export PYTHONFAULTHANDLER=1\nPython then prints where it was when it died."
NO_PROXY = "export NO_PROXY='*'\nPython then does not ask macOS for its proxies."
NO_KERBEROS = (
    "export PGGSSENCMODE=disable\nPostgreSQL's library then does not ask macOS for Kerberos."
)
NO_CHECK = "export OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES\nObjective-C then does not end forked processes."
ONE_KEY = "export AIRFLOW__API_AUTH__JWT_SECRET=...\nOne secret for all parts of Airflow. Compare their clocks, too."
TRY = (RESTART, FAULTHANDLER, NO_PROXY, NO_KERBEROS, NO_CHECK, SPAWN)
NOT_ALONE = "The shim alone does not prevent this."


class Cause(NamedTuple):
    """Something that kills a process."""

    name: str
    says: str  # for people
    helps: tuple[str, ...]
    source: str = ""
    native: str = "(?!)"  # searched in a crash report's lines "image symbol" and the system's notes
    python: str = "(?!)"  # searched in a line "file function" of a faulthandler dump
    prevented: bool | None = False  # by the shim; None if that is not known
    variable: str = ""  # that helps for certain


# fmt: off
CAUSES = (
    Cause("setproctitle", "setproctitle called macOS after fork. The shim prevents this where it is on.",
          (RESTART, STATUS), "https://github.com/dvarrazzo/py-setproctitle/issues/113", prevented=True,
          native=r"(?m)^_setproctitle\.|\bdarwin_set_process_title\b|"
          r"\b_LS(ApplicationCheckIn|SetApplicationInformationItem)\b(?=[\s\S]*(on child side of|process) fork)",
          python=r"\bsetproctitle/__init__\.py |(^| )\w*(proctitle|set_(mp_)?process_title|procline)$"),
    Cause("_scproxy", f"Python asked macOS for its proxies after fork. {NOT_ALONE}",
          (NO_PROXY, RESTART), "https://github.com/python/cpython/issues/58037", variable="NO_PROXY=*",
          native=r"(?m)^_scproxy\.|\bSCDynamicStoreCopyProxies|\bCFNetworkCopySystemProxySettings",
          python=r" (proxy_bypass|getproxies)_macosx_sysconf$"),
    Cause("libpq", f"PostgreSQL's library asked macOS for Kerberos after fork. {NOT_ALONE}",
          (NO_KERBEROS, RESTART), "https://github.com/psycopg/psycopg2/issues/1593", variable="PGGSSENCMODE=disable",
          native=r"\b(krb5_init_context|gss_acquire_cred|pg_GSS_have_cred_cache)|"
          r"\A(?![\s\S]*\bgetaddrinfo\b)[\s\S]*\bPQconnectPoll\b",
          python=r"\bpsycopg2?(_c|_binary)?/.* (_?connect|connect_poll)$"),
    Cause("network", f"A name was looked up, or a connection made, after fork. {NOT_ALONE}",
          (UPGRADE, SPAWN, RESTART), "https://github.com/apache/airflow/issues/64874",
          native=r"(?im)^(Security|CFNetwork|Network|NetworkExtension|libnetwork\.dylib) |"
          r"\bgetaddrinfo\b|\bnw_path_|\bSec(Trust|Keychain)",
          python=r"\bsocket(\.py)? (getaddrinfo|create_connection)$|\bssl(\.py)? "),
    # From here on it is what many libraries go through: the top of a stack does not tell which one it was.
    Cause("objective-c", f"A library used Objective-C after fork. {NOT_ALONE}",
          TRY, "https://github.com/python/cpython/issues/77906", variable="OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES",
          native=r"performForkChildInitialize|objc_initializeAfterForkError|when fork\(\) was called|Namespace OBJC\b"),
    Cause("corefoundation", f"A library used macOS's CoreFoundation after fork. {NOT_ALONE}",
          (RESTART, FAULTHANDLER, NO_PROXY, SPAWN), "https://github.com/python/cpython/issues/77906",
          native=r"(?im)^CoreFoundation |THE_PROCESS_HAS_FORKED"),
    Cause("libdispatch", f"A library used macOS's libdispatch after fork. {NOT_ALONE}",
          (RESTART, FAULTHANDLER, SPAWN), "https://github.com/psycopg/psycopg2/issues/691",
          native=r"(?im)^(libdispatch|libxpc)\.dylib "),
)
UNKNOWN = Cause("unknown", "A process died, but not why.", TRY, prevented=None)
NOT_FORK = Cause("not fork", "Python died without a fork. The shim is not for this.", (CONSOLE,))
API = Cause("execution-api", "Airflow's API refused workers (401). No process died of it.",
            (ONE_KEY,), "https://github.com/apache/airflow/issues/49871")
# fmt: on
ALL = (*CAUSES, UNKNOWN, NOT_FORK, API)
# Functions that call setproctitle's C function themselves, where they are the innermost: C shows no frame.
CALLERS = re.compile(
    r"/(gunicorn|airflow|distributed|xdist|granian)/.*\.py (init_process|_run_worker|_?execute_work\w*|startup"
    r"|_run_processor_manager|_?run_file_processor|_handle_dag_file_processing|serve_logs|\w*fork\w*)$"
    r"|/(distributed/proctitle|local_executor|gunicorn_config|api_server_command|base_executor|xdist/remote"
    r")\.py \w+$|/(mutmut/__main__\.py _run|django_q/\w+\.py (worker|monitor|pusher))$"
)


def of_report(lines: str, cut_off: bool = False) -> tuple[Cause, str]:
    """Return the cause that a crash report's lines tell, and the line that tells it ("" if none does)."""
    for cause in CAUSES[:4] if cut_off else CAUSES:
        if found := re.search(cause.native, lines):
            return cause, lines[: found.end()].rpartition("\n")[2] + lines[found.end() :].partition(
                "\n"
            )[0]
    return UNKNOWN, ""


@functools.lru_cache(maxsize=1000)
def of_dump(frames: tuple[str, ...], native: str) -> Cause:
    """Return the cause that a dump tells: Python's frames ("file function", innermost first), or else native ones."""
    if frames and CALLERS.search(frames[0]):
        return CAUSES[0]
    known = (cause for frame in frames for cause in CAUSES if re.search(cause.python, frame))
    return next(known, None) or of_report(native)[0]
