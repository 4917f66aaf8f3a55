"""How trouble is written down: the sentences that tell of a death, the frames that tell its cause, and
the ways to write a time. Data for deaths.py and crash_reports.py."""

from __future__ import annotations

import datetime
import functools
import math
import re
from typing import NamedTuple


class Cause(NamedTuple):
    """Something that kills a process, and what helps against it without changing a package."""

    name: str
    native: str  # pattern of the lines "image symbol" of a crash report, and of the system's notes there
    python: str  # pattern of "file function" in faulthandler's dump
    remedy: str
    sources: tuple[str, ...] = ()


SETPROCTITLE, OBJECTIVE_C, UNKNOWN = "setproctitle", "Objective-C +initialize", "unknown"
CAUSES = (
    Cause(
        SETPROCTITLE,
        r"(?m)^_setproctitle\.|\bdarwin_set_process_title\b|\b_LS(ApplicationCheckIn|SetApplicationInformationItem)",
        r"\bsetproctitle(/|\\)__init__\.py |(^| )\w*(setproctitle|set_(mp_)?process_title|procline)$",
        "",
        ("dvarrazzo/py-setproctitle/issues/113",),
    ),
    Cause(
        "_scproxy",
        r"(?m)^_scproxy\.|\bSCDynamicStoreCopyProxies",
        r" (proxy_bypass|getproxies)_macosx_sysconf$",
        "export NO_PROXY='*'",
        ("python/cpython/issues/58037",),
    ),
    Cause(
        "libpq's GSS",
        r"\b(krb5_init_context|gss_acquire_cred|pg_GSS_have_cred_cache)"
        r"|\A(?![\s\S]*\bgetaddrinfo\b)[\s\S]*\bPQconnectPoll\b",
        r"\bpsycopg2?(_c|_binary)?/.* (_?connect|connect_poll)$",
        "export PGGSSENCMODE=disable",
        ("ged/ruby-pg/issues/311",),
    ),
    Cause(
        "DNS/Network/Security",
        r"(?m)^(Security|Network|libnetwork\.dylib) |\bgetaddrinfo\b|\bnw_path_|\bSec(Trust|Keychain)",
        r"\bsocket\.py (getaddrinfo|create_connection)$|\bssl\.py ",
        "start the program's workers by spawn or exec where it lets you",
        ("apache/airflow/issues/64874",),
    ),
    Cause(
        OBJECTIVE_C,
        r"performForkChildInitialize|objc_initializeAfterForkError|when fork\(\) was called",
        r"(?!)",
        "export OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES",
        ("python/cpython/issues/77906",),
    ),
    Cause(UNKNOWN, "", "", "", ()),
)
# Functions that call setproctitle's C function themselves: nothing of it shows in Python's frames.
CALLERS = re.compile(
    r"/(gunicorn/(util|arbiter)\.py (_setproctitle|init_process)"
    r"|airflow/executors/local_executor\.py (_run_worker|_execute_work\w*|run|start|execute_work\w*)"
    r"|airflow/(dag_processing/(manager|processor)\.py (_run_processor_manager|_?run_file_processor"
    r"|_handle_dag_file_processing)|task/task_runner/standard_task_runner\.py _start_by_fork"
    r"|utils/serve_logs(/core)?\.py serve_logs|(www|api_internal|api_fastapi)/gunicorn_config\.py \w+"
    r"|cli/commands/api_server_command\.py \w+|executors/base_executor\.py \w+"
    r"|providers/celery/executors/celery_executor\w*\.py \w*fork\w*|sdk/execution_time/task_runner\.py startup)"
    r"|distributed/proctitle\.py \w+|xdist/remote\.py \w+|granian/server/\w+\.py \w+)$"
)


def cause_named(name: str) -> Cause:
    return next(cause for cause in CAUSES if cause.name == name)


def cause_of_crash(text: str) -> Cause:
    """Return the cause that a crash report's lines "image symbol" and the system's notes tell."""
    return next(cause for cause in CAUSES if re.search(cause.native, text))


def cause_of(frames: list[str]) -> Cause:
    """Return the cause that the innermost of a dump's frames ("file function") tell."""
    for number, frame in enumerate(frames):
        if number == 0 and CALLERS.search(frame):
            return CAUSES[0]
        for cause in CAUSES[:-1]:
            if re.search(cause.python, frame):
                return cause
    return CAUSES[-1]


class Sentence(NamedTuple):
    """One way to tell of a death. Two lines may tell of one death if their sentences' families are the same."""

    family: str
    pattern: re.Pattern[bytes]  # groups: pid, job, who
    repeated: bool = False  # what is printed again and again of one death


START = rb"(?:^|[]|>:}+-] |\dZ? |\": ?\"|\\n)\s{0,40}"
FAULT = rb"egmentation fault(?:: 11)?(?:\s{0,40}\(core dumped\))?"
CODE = rb"(?:<?Negsignal\.SIGSEGV|-SIGSEGV|-11|139)\b(?!\.?\d)"
DUMP, GENERAL, REFUSED, DOCKER = "dump", "general", "refused", "docker"


def _sentence(family: str, pattern: bytes, repeated: bool = False) -> Sentence:
    return Sentence(family, re.compile(pattern), repeated)


# The first that a line has counts, so the general ones come last. All words of a program are as it writes
# them; where a number of the same look could mean something else, it is bounded.
SENTENCES = (
    _sentence(
        "gunicorn", rb"[Ww]orker \(pid: ?(?P<pid>\d+)\) was sent (?:SIGSEGV|(?:code|signal) (?:11|139))!"
    ),
    _sentence("gunicorn", rb"Worker with pid (?P<pid>\d+) was terminated due to signal 11\b"),
    _sentence("celery", rb"Process \S+ pid:(?P<pid>\d+) exited with \W*signal 11\b"),
    _sentence("celery", rb"Worker exited prematurely: signal 11\b(?: \(SIGSEGV\))? Job: (?P<job>\d+)"),
    _sentence("celery", rb"Task handler raised error: .{0,300}Worker exited prematurely: signal 11\b"),
    _sentence("celery", rb"WorkerLostError: Worker exited prematurely: signal 11\b"),
    _sentence("airflow task", rb"\*{5,} Received SIGSEGV \*{5,}"),
    _sentence("airflow task", rb"Task exited with return code (?:-11|Negsignal\.SIGSEGV)\b"),
    _sentence("airflow bash", rb"Command exited with return code -11\b"),
    _sentence("airflow bash", rb"command returned a non-zero exit code -11\b"),
    _sentence("airflow dag", rb"Received SIGSEGV signal while processing (?!\{)"),
    _sentence("airflow 3", rb"^(?=.*\bProcess exited\b).*?\bexit_code\W{1,4}" + CODE),
    _sentence("airflow 3", rb"^(?=.*\b(?:Task|Workload) finished\b).*?\bexit_code\W{1,4}" + CODE),
    _sentence("airflow 3", rb"\bsignal_name\W{1,4}SIGSEGV\b"),
    _sentence(DUMP, START + rb"Fatal Python error: Segmentation fault(?=\s{0,40}(?:$|\"|\\n|\[))"),
    _sentence(
        "objc",
        rb"objc\[(?P<pid>\d+)\]: .{0,200}may have been in progress in another thread when fork\(\) was called",
        True,
    ),
    _sentence(
        "multiprocessing",
        rb"<\w*Process name='[^']*' pid=(?P<pid>\d+)[^<>]*? exitcode=-(?:SIGSEGV|11)\b",
        True,
    ),
    _sentence("multiprocessing", rb"<\w*Process\([^<>)]*stopped\[(?:SIGSEGV|-11)\]", True),
    _sentence("loky", rb"\bSIGSEGV\(-11\)"),
    _sentence("subprocess", rb"died with <Signals\.SIGSEGV: 11>"),
    _sentence("uwsgi", rb"uWSGI process (?P<pid>\d+) got Segmentation Fault"),
    _sentence("uwsgi", rb"\(pid: (?P<pid>\d+)\) \w+,? killed by signal 11\b"),
    _sentence("uwsgi", rb"subprocess (?P<pid>\d+) exited by signal 11\b"),
    _sentence("rq", rb"Moving job to .{0,80}[Ww]ork-horse .{0,80}waitpid returned (?:11|139)\b"),
    _sentence(
        "rq", rb"[Ww]ork-horse (?:process was )?terminated unexpectedly[;,]? \(?waitpid returned (?:11|139)\b"
    ),
    _sentence("handler", rb"\*\*\* SIGSEGV (?:received at time=|\(@)"),
    _sentence("handler", rb"Signal 11 \(SIGSEGV\) received by PID (?P<pid>\d+)"),
    _sentence("kernel", rb"(?P<who>[\w.-]+)\[(?P<pid>\d+)\]: segfault at [0-9a-f]+ ip"),
    _sentence(
        "supervisor",
        rb"(?:(?P<who>[\w@.-]+)\.service: .{0,60})?code=(?:dumped|killed), (?:status=11\b(?:/SEGV)?|signal=SEGV)",
    ),
    _sentence(
        "supervisor",
        rb"(?:(?P<who>\w[\w-]*(?:\.[\w-]+)+) ?(?:\[(?P<pid>\d+)\])?\)?: (?:Service )?)?"
        rb"exited due to (?:signal: )?(?:SIGSEGV|Segmentation fault)",
    ),
    _sentence("supervisor", rb"exited: (?P<who>[\w:.-]+) \(terminated by SIGSEGV"),
    _sentence("supervisor", rb"\bexited with code \[\d*\] via signal \[SIGSEGV\]"),
    _sentence(DOCKER, rb"^(?P<who>[\w.-]+) exited with code 139\b"),
    _sentence(DOCKER, rb"\b[Ee]xited \(139\)"),
    _sentence("shell", rb"^make(?:\[\d+\])?:.{0,1}\*\*\* .{0,500}(?:Error 139\b|Segmentation fault)"),
    _sentence("shell", rb": line \d+: +(?P<pid>\d+) S" + FAULT),
    _sentence("shell", rb"^\[\d+\] *[+-]? *(?P<pid>\d+) s" + FAULT),
    _sentence("shell", rb"^[\w./-]+:(?:\d+:)? s" + FAULT + rb"(?:  | \(|$|(?<=\)) )"),
    _sentence("shell", START + rb"S" + FAULT + rb"(?:\s{0,40}$|\s{2,40}\S|(?<=\)) +\S)"),
    _sentence("process", rb"\bsignal: segmentation fault\b|\bexit signal Segmentation fault\b"),
    _sentence(
        GENERAL,
        rb"\b(?:killed|terminated|died|crashed|interrupted|stopped|exited|ended|failed|aborted|dumped)\b"
        rb"(?: \w+){0,2}? (?:by|with|on|due to|from|because of|via) (?:an? )?"
        rb"(?:[Ss]ignal\W{1,3}(?:11|SIGSEGV)\b|SIGSEGV\b|[Ss]egmentation fault)",
    ),
    _sentence(
        GENERAL,
        rb"(?i)\b(?:(?:exit|return)[ _]?(?:code|status)|(?:exited|finished|terminated|failed) (?:with )?(?:code|status)|rc)"
        rb"\b[\"']?\s*(?:[:=])?\s*[\"'\[(]?" + CODE,
    ),
    _sentence(REFUSED, rb"/execution/.{0,500}?\b40[13] (?:Unauthorized|Forbidden)"),
    _sentence(REFUSED, rb"'40[13] (?:Unauthorized|Forbidden)' for url '[^']*/execution/"),
    _sentence(REFUSED, rb"ServerResponseError\W.{0,40}Invalid auth token"),
)
# Each line that has one of the sentences has one of these, and hardly any other line has.
NEEDLES = (
    *(b"SEGV", b"egmentation", b"egfault at", b"ignal 11", b" -11", b"=-11", b":-11", b"139"),
    *(b"when fork() was", b" Unauthorized", b" Forbidden", b"nvalid auth token", b"waitpid"),
)
# General words may be a rule, a guess, a denial or a memory instead: then these stand beside them.
NO_NEWS = re.compile(
    rb"(?i)\b(?:if|when|whenever|where|may|might|can|could|would|should|will|not|never|no|without|unless|whether"
    rb"|prevent\w*|avoid\w*|fix(?:e[sd])?|example|earlier|previous(?:ly)?|former(?:ly)?|used to|always|usually|means?|indicates?)\b"
    rb"[^.;!?]*$"
)
EXPLAINED = re.compile(rb"[^.;]{0,12}?\b(?:means?|indicates?|is|are|or|refers)\b")
PID = re.compile(rb"(?i)\bpid[\"']?\s*[:=]?\s*(?P<pid>\d+)\b")

SIDES = ("before", "since", "undated")
Span = tuple[float, float]  # the earliest and the latest moment that a written time can mean
NEVER: Span = (-math.inf, math.inf)
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def side(when: Span | None, installed_at: float) -> str:
    """Return whether it was before or since the installation, whatever the zone, or neither can be told."""
    earliest, latest = when or NEVER
    if earliest >= installed_at:
        return "since"
    return "before" if latest < installed_at else "undated"


# The name that `airflow standalone`, docker compose, honcho and foreman put before each line of a program.
ANSI = rb"(?:\x1b|\\u001b|#033)\[[\d;]*m"
PREFIX = (
    rb"(?:"
    + ANSI
    + rb")*(?:\d\d:\d\d:\d\d )?([A-Za-z][\w.-]{1,60}?) *(?:"
    + ANSI
    + rb")* ?\| ?(?:"
    + ANSI
    + rb")*"
)
CLOCK = rb"(\d\d):(\d\d):(\d\d)"
ZONE = rb"(?:[.,]\d+)? ?(Z|UTC|GMT|[+-]\d\d:?\d\d(?!\d))?"
LEVELS = rb"trace|debug|info|notice|warn(?:ing)?|error|critical|fatal|timestamp|asctime|time|ts|date"
# A line's own time stands at its start or is a value in JSON; times elsewhere are data.
DATED = re.compile(
    rb"(?im)^(?:" + PREFIX + rb")?(?:"
    rb"(?:(?:[^a-z\n]|"
    + ANSI
    + rb"|\b(?:"
    + LEVELS
    + rb")\b){0,48}?|\{.{0,4000}?\"@?(?:"
    + LEVELS
    + rb")\": ?\")"
    rb"(?<!\d)(?P<iso>(\d{4})[-/](\d\d)[-/](\d\d)(?:[T ]|, ?)" + CLOCK + ZONE + rb")"
    rb"|[^a-z\n]{0,48}?(?P<access>(\d\d)/([a-z]{3})/(\d{4})[: ]" + CLOCK + ZONE + rb")"
    rb"|(?:[^a-z\n]{0,9}[a-z]{3} )?(?P<syslog>([a-z]{3}) +(\d{1,2}) " + CLOCK + rb"(?: (\d{4})\b)?))"
)
UTC = datetime.timezone.utc
EAST, WEST = datetime.timedelta(hours=14), datetime.timedelta(hours=12)  # of all zones


def moment(written: re.Match[bytes]) -> Span | None:
    """Return what a match of DATED can mean, None if there is no such day."""
    parts = written.groups(b"")
    iso, access, syslog = parts[2:9], parts[10:17], parts[18:24]
    if written["iso"]:
        return _span(*iso)
    if written["access"]:
        return _span(*access[2::-1], *access[3:])
    return _span(syslog[5], *syslog[:5], b"")


@functools.lru_cache(maxsize=1024)
def _span(
    year: bytes, month: bytes, day: bytes, hour: bytes, minute: bytes, second: bytes, zone: bytes
) -> Span | None:
    now = datetime.datetime.now(UTC) + EAST
    try:
        number = int(month) if month.isdigit() else MONTHS.index(month.capitalize()) + 1
        clock = int(hour), int(minute), int(second)
        at = datetime.datetime(int(year or now.year), number, int(day), *clock, tzinfo=UTC)
        if not year:  # It is of this year or of any before.
            return -math.inf, (at.replace(year=at.year - (at > now)) + WEST).timestamp()
    except ValueError:
        return None
    digits = zone.replace(b":", b"").lstrip(b"ZUTCGMzutcgm") or b"+0000"
    offset = datetime.timedelta(hours=int(digits[:3]), minutes=int(digits[:1] + digits[3:]))
    if not 1990 <= at.year < 2100:  # A clock that was not set says nothing.
        return None
    if zone and -WEST <= offset <= EAST:
        return ((at - offset).timestamp(),) * 2
    return (at - EAST).timestamp(), (at + WEST).timestamp()
