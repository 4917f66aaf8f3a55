"""The table: what kills Python's forked processes on macOS, how it shows, and what helps."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from . import advice


class Cause(NamedTuple):
    """Something that kills a process. The expressions are searched in single lines: of a native
    stack "image symbol" or one of macOS's notes, of Python's "file function"."""

    name: str
    says: str  # where macOS's report tells it; with `line`, where a line of a log does
    helps: tuple[advice.Help, ...]
    source: str = ""
    native: str = ""  # A frame or a note that tells it.
    general: str = ""  # The same, if nothing else is told, and of a forked process only.
    python: str = ""  # A frame of Python that suggests it.
    innermost: str = ""  # The same, where it is the innermost one.
    was_doing: str = ""  # what such a frame of Python shows
    often: str = ""  # what that often is on a Mac
    line: str = ""  # what is known where a line of a log names it
    prevented: bool | None = False  # by the shim; None if that is not known
    cured_by: str = ""  # the variable that prevents it, as NAME=value
    is_cured: bool = False  # What helps is known to help where a report tells it.
    is_note: bool = False  # It kills nobody.


# Functions that call setproctitle's C function, which shows no frame of its own.
CALL_SETPROCTITLE = (
    r"/(gunicorn|granian)/.*\.py (init_process|startup)$"
    r"|/airflow/.*\.py (_run_worker|_?execute_work\w*|_?run_file_processor|serve_logs|\w*fork\w*)$"
    r"|/airflow/.*\.py (_run_processor_manager|_handle_dag_file_processing)$"
    r"|/(local_executor|gunicorn_config|api_server_command|base_executor)\.py \w+$"
    r"|/(distributed/proctitle|xdist/remote)\.py \w+$"
    r"|/mutmut/__main__\.py _run$"
    r"|/django_q/\w+\.py (worker|monitor|pusher)$"
)
AFTER_FORK = "https://github.com/python/cpython/issues/77906"

CAUSES = (
    Cause(
        name="setproctitle",
        says="setproctitle called macOS after fork. The shim prevents this where it is on.",
        was_doing="It died while it set its title.",
        often="On a Mac that is setproctitle, which calls macOS after fork. The shim prevents this "
        "where it is on.",
        helps=(advice.RESTART, advice.STATUS),
        source="https://github.com/dvarrazzo/py-setproctitle/issues/113",
        native=r"^_setproctitle\.|\bdarwin_set_process_title\b",
        general=r"\b_LS(ApplicationCheckIn|SetApplicationInformationItem)\b",
        python=r"\bsetproctitle/__init__\.py "
        r"|(^| )\w*(proctitle|set_(mp_)?process_title|procline)$",
        innermost=CALL_SETPROCTITLE,
        prevented=True,
        is_cured=True,
    ),
    Cause(
        name="fork",
        says="fork() itself died: macOS's network library runs in it, once the program has used "
        "the network.",
        was_doing="It died while it started another program.",
        often="On a Mac that is often fork() itself, once the program has used the network.",
        line="A line names a part of fork() in which macOS's network library can die.",
        helps=(advice.NO_FORK, advice.SPAWN),
        source="https://github.com/NousResearch/hermes-agent/issues/97296",
        native=r"\b_pthread_atfork_child_handlers\b|\w_child_has_forked\b",
        innermost=r"\bsubprocess(\.py)? _execute_child$",
        is_cured=True,
    ),
    Cause(
        name="_scproxy",
        says="Python asked macOS for its proxies after fork.",
        was_doing="It died while Python asked macOS for its proxies.",
        often="That is not safe after fork.",
        helps=(advice.NO_PROXY, advice.RESTART),
        source="https://github.com/python/cpython/issues/58037",
        native=r"^_scproxy\.|\bSCDynamicStoreCopyProxies|\bCFNetworkCopySystemProxySettings",
        python=r" (proxy_bypass|getproxies)_macosx_sysconf$",
        cured_by=r"(?i:\w+_proxy)=.+",
        is_cured=True,
    ),
    Cause(
        name="libpq",
        says="PostgreSQL's library asked macOS for Kerberos after fork.",
        was_doing="It died while connecting to PostgreSQL.",
        often="On a Mac that is often Kerberos after fork.",
        helps=(advice.NO_KERBEROS, advice.RESTART, advice.SPAWN),
        source="https://github.com/psycopg/psycopg2/issues/1593",
        native=r"\b(krb5_init_context|gss_acquire_cred|pg_GSS_have_cred_cache)",
        general=r"\bPQconnectPoll\b",
        python=r"\bpsycopg2?(_c|_binary)?/.* (_?connect|connect_poll|_connect_gen)$",
        cured_by="PGGSSENCMODE=disable",
        is_cured=True,
    ),
    Cause(
        name="network",
        says="A name was looked up, or a connection made, after fork.",
        was_doing="It died while it looked up a name, or connected.",
        often="On a Mac that is often macOS's network library after fork.",
        helps=(advice.UPGRADE, advice.SPAWN, advice.NO_PROXY, advice.RESTART),
        source="https://github.com/apache/airflow/issues/64874",
        native=r"(?i)^(Security|CFNetwork|Network|NetworkExtension|libnetwork\.dylib) "
        r"|\bgetaddrinfo\b|\bnw_path_|\bSec(Trust|Keychain)",
        python=r"\bsocket(\.py)? (getaddrinfo|create_connection)$|\bssl(\.py)? ",
    ),
    Cause(
        name="blas",
        says="A library for numbers (Apple's Accelerate or OpenMP, under numpy, torch and others) "
        "used its threads after fork.",
        was_doing="It died while it computed with arrays.",
        often="On a Mac that is often a library for numbers, which uses its threads after fork.",
        line="A library for numbers (OpenMP) met a fork.",
        helps=(advice.ONE_THREAD, advice.ONE_OPENMP_THREAD, advice.SPAWN),
        source="https://github.com/pymc-devs/pymc/issues/8377",
        native=r"^(lib\w*BLAS|lib\w*LAPACK|libvDSP|libBNNS|vecLib|Accelerate|lib[gi]?omp5?)\b"
        r"|\b__kmp_",
        innermost=r"/(numpy|scipy)/linalg/\S+ \w+$|/torch/nn/functional\.py \w+$",
        cured_by="VECLIB_MAXIMUM_THREADS=1",
        is_cured=True,
    ),
    # From here on it is what many libraries go through.
    Cause(
        name="objective-c",
        says="A library used Objective-C after fork.",
        line="Objective-C ended a process after fork. The line does not tell for which library.",
        helps=advice.TRY,
        source=AFTER_FORK,
        native=r"performForkChildInitialize|objc_initializeAfterForkError|when fork\(\) was called",
        general=r"Namespace OBJC\b",
        cured_by="OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES",
    ),
    Cause(
        name="corefoundation",
        says="A library used macOS's CoreFoundation after fork.",
        was_doing="It died in macOS's CoreFoundation.",
        often="That is not safe after fork.",
        helps=(
            advice.REPORTS,
            advice.RESTART,
            advice.FAULTHANDLER,
            advice.NO_PROXY,
            advice.SPAWN,
        ),
        source=AFTER_FORK,
        native=r"THE_PROCESS_HAS_FORKED",
        general=r"(?i)^CoreFoundation ",
    ),
    Cause(
        name="libdispatch",
        says="A library used macOS's libdispatch after fork.",
        was_doing="It died in macOS's libdispatch.",
        often="That is not safe after fork.",
        helps=(advice.RESTART, advice.FAULTHANDLER, advice.ONE_THREAD, advice.SPAWN),
        source="https://github.com/psycopg/psycopg2/issues/691",
        general=r"(?i)^(libdispatch|libxpc)\.dylib ",
    ),
)
KILLED = Cause(
    name="killed",
    says="Something sent SIGKILL. Mostly that is want of memory, or a time limit; on a Mac it can "
    "be Objective-C or setproctitle after fork.",
    helps=(advice.MEMORY, *advice.TRY),
    source="https://github.com/rq/rq/issues/2073",
    prevented=None,
)
UNKNOWN = Cause(
    name="unknown",
    says="A process died, but not why.",
    was_doing="A process died.",
    helps=advice.TRY,
    prevented=None,
)
NOT_FORK = Cause(
    name="not fork",
    says="Python died without a fork. The shim is not for this.",
    helps=(advice.ASK,),
)
API = Cause(
    name="execution-api",
    says="Airflow's API refused workers (401). No process died of it.",
    helps=(advice.ONE_SECRET,),
    source="https://github.com/apache/airflow/issues/49871",
    is_note=True,
)
BILLIARD = Cause(
    name="celery-billiard",
    says="Celery below 5.7 does not work with billiard 4.3 on a Mac: every task fails, with the "
    "shim or without. No process died of it.",
    helps=(advice.OLDER_BILLIARD,),
    source="https://github.com/celery/celery/issues/10683",
    is_note=True,
)
ALL = (*CAUSES, KILLED, UNKNOWN, NOT_FORK, API, BILLIARD)
BY_NAME = {cause.name: cause for cause in ALL}


def _patterns(column: str) -> list[tuple[Cause, re.Pattern[str]]]:
    """Return a column of the table, made ready, without what is empty."""
    cells = [(cause, getattr(cause, column)) for cause in CAUSES]
    return [(cause, re.compile(pattern)) for cause, pattern in cells if pattern]


NATIVE, GENERAL = _patterns("native"), _patterns("general")
PYTHON, INNERMOST = _patterns("python"), _patterns("innermost")


@functools.lru_cache(maxsize=100)
def of_native(lines: tuple[str, ...], is_forked: bool) -> tuple[Cause, int]:
    """Return the cause that a native stack and macOS's notes tell, and which line tells it.
    `is_forked`: it is known, or likely, that the process was forked."""
    for cause, pattern in (*NATIVE, *GENERAL) if is_forked else NATIVE:
        for number, line in enumerate(lines):
            if pattern.search(line):
                return cause, number
    return UNKNOWN, 0


@functools.lru_cache(maxsize=100)
def of_python(frames: tuple[bytes, ...]) -> tuple[Cause, int]:
    """Return the cause that frames of Python suggest, and which frame does; innermost first."""
    names = [frame.decode(errors="replace") for frame in frames]
    for cause, pattern in INNERMOST:
        if pattern.search(names[0]):
            return cause, 0
    for number, name in enumerate(names):
        for cause, pattern in PYTHON:
            if pattern.search(name):
                return cause, number
    return UNKNOWN, 0
