"""The table: how programs and systems say, in a line, that a process died.

To add a wording, add a row with an example of it; a test reads the examples. A line is looked at
only where a row's literal stands in it: choose one without digits that is rare in logs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .causes import ALL, API, BILLIARD, KILLED, UNKNOWN
from .crash_reports import BEFORE, NO_BREAK

SIGNAL = r"SIG(?:SEGV|BUS|ABRT|TRAP|ILL)\b"
# Of SIGILL, SIGTRAP, SIGABRT, SIGBUS (7 on Linux) and SIGSEGV: as Python tells them, and as shells.
# The group "killed" is SIGKILL.
CODE = r"(?:-(?:4|5|6|7|10|11)|13[2-589]|(?P<killed>-9|137))"
IS = r"['\"]?(?: was| is)?[ \t:=(\[<]{1,5}['\"<]?"  # between a name and its value
CODE_OF = r"|.*(?:[^r][ _]|[^ \w]|exit|return)"  # before "code"; not "error code"
END = r"(?![\w%]|[.:,/-]\d| of \d)"  # behind a number


class Word(NamedTuple):
    """A wording."""

    who: str  # prints it, among others
    example: str
    sought: str  # a literal in it
    pattern: str  # for the line, from that literal on where the literal is a common one
    before: str = ""  # all that stands before that, if that matters
    cause: str = UNKNOWN.name
    above: str = ""  # what stands in the line, or in one of the few above it


# fmt: off
WORDS = (
    # A signal's name.
    Word(who="gunicorn, Celery, Airflow", example="[ERROR] Worker (pid:1) was sent SIGSEGV!",
         sought="SIG", pattern=SIGNAL),
    Word(who="systemd", example="a.service: Main process exited, code=dumped, status=11/SEGV",
         sought="code", pattern=r"code=\w+, status=\d+/(?:SEGV|BUS|ABRT|TRAP|ILL)\b"),
    Word(who="lldb", example="EXC_BAD_ACCESS (code=1, address=0x110)",
         sought="EXC_", pattern=r"EXC_(?:BAD_ACCESS|BAD_INSTRUCTION|BREAKPOINT)\b"),
    # A signal's description: the system's, and so the shells'.
    Word(who="zsh, bash", example="zsh: segmentation fault  python app.py",
         sought="egmentation ", pattern=r"egmentation [Ff]ault\b"),
    Word(who="C programs", example="*** SEGMENTATION FAULT ***",
         sought="SEGMENTATION", pattern=r"SEGMENTATION FAULT\b"),
    Word(who="Linux", example="kernel: python[1]: segfault at 0 ip 00007f sp 00007f error 4",
         sought="egfault", pattern=r"\b[Ss]egfault(?:ed)?\b"),
    Word(who="zsh, bash", example="Bus error: 10",
         sought="us error", pattern=r"\b[Bb]us error\b"),
    Word(who="zsh, bash", example="run.sh: line 3:  423 Abort trap: 6           python app.py",
         sought=" trap", pattern=r"\b(?:[Aa]bort|[Tt]race(?:/\w+)?) trap\b"),
    Word(who="zsh", example="zsh: abort      python app.py",
         sought="abort ", pattern=r"abort  ", before=r".*(?:\bz?sh: |[\d+-] )"),
    Word(who="bash", example="run.sh: line 3:  423 Aborted                 python app.py",
         sought="Aborted", pattern=r"Aborted(?:  |\s*$)", before=r"|.*(?:\d |\| )"),
    Word(who="zsh, bash", example="zsh: illegal hardware instruction  python app.py",
         sought="llegal ", pattern=r"\b[Ii]llegal (?:hardware )?instruction\b"),
    Word(who="ksh", example="ksh: 423 Memory fault",
         sought="Memory fault", pattern=r"\bMemory fault\b"),
    Word(who="bash, supervisord", example="[1]+  Quit (core dumped)  python app.py",
         sought="ore dumped", pattern=r"\b[Cc]ore dumped\b"),
    Word(who="systemd-coredump", example="Process 423 (python3) of user 501 dumped core.",
         sought="dumped core", pattern=r"\bdumped core\b"),
    Word(who="systemd", example="a.service: Failed with result 'core-dump'.",
         sought="core-dump", pattern=r"result 'core-dump'"),
    Word(who="Linux", example="traps: python[1] general protection fault ip:7f sp:7f error:0",
         sought="general protection", pattern=r"\bgeneral protection fault\b"),
    Word(who="macOS", example="crashed on child side of fork pre-exec",
         sought="fork pre-exec", pattern=r"child side of fork pre-exec"),
    Word(who="macOS's log", example="Formulating fatal 309 report for corpse[4242] Python",
         sought="report for ", pattern=r"report for (?:corpse\[|Python\[)"),
    Word(who="macOS", example="Python quit unexpectedly.",
         sought="unexpectedly", pattern=r"unexpectedly\b", before=r".*\bquit "),
    # A signal's number.
    Word(who="distributed, Tornado, cotyledon", example="Worker process 8 was killed by signal 11",
         sought="ignal", pattern=rf"ignal{IS}-?(?:6|10|11|(?P<killed>9)){END}"),
    Word(who="pytest-forked, dagster, s6", example=":-1: running the test CRASHED with signal 4",
         sought="ignal", pattern=rf"ignal{IS}(?:4|5|7){END}", before=r".*(?:by|with) s"),
    Word(who="C programs", example="CAUGHT SIGNAL 11",
         sought="SIGNAL", pattern=rf"SIGNAL{IS}(?:6|10|11){END}"),
    # A status, or a code.
    Word(who="docker ps, npm", example="Exited (139) 2 minutes ago",
         sought="xit", pattern=rf"xit(?:ed)?(?:[ _](?:with|status))*{IS}{CODE}{END}"),
    Word(who="Docker Compose, PyCharm, Airflow", example="web_1 exited with code 139",
         sought="code", pattern=rf"code{IS}{CODE}{END}", before=CODE_OF),
    Word(who="kubectl", example="      Exit Code:    139",
         sought="Code", pattern=rf"Code{IS}{CODE}{END}"),
    Word(who="scripts that tell os.wait()", example="Child [4242] exited with code 11",
         sought="xit", pattern=rf"xit(?:ed)?[ _]?(?:with )?code{IS}11{END}"),
    Word(who="honcho", example="18:04:11 web.1 | stopped (rc=-11)",
         sought="rc=", pattern=rf"rc={CODE}{END}", before=r"|.*\W"),
    Word(who="Ansible", example='fatal: [localhost]: FAILED! => {"changed": false, "rc": -11}',
         sought='"rc":', pattern=rf'"rc": {CODE}{END}'),
    Word(who="make", example="make: *** [serve] Error 139",
         sought="] Error ", pattern=rf"\] Error {CODE}{END}"),
    Word(who="npm", example="npm ERR! errno 139",
         sought="errno", pattern=rf"errno (?:13[2-589]|(?P<killed>137)){END}",
         before=r".*npm (?:ERR!|error) "),
    # What programs say of their workers.
    Word(who="uvicorn, huey, uWSGI, mpire, Salt, vLLM, Ray", sought=" died",
         example="INFO:     Child process [12050] died",
         pattern=r" died\b",
         before=r"(?i:.*\b(?:process|workers?|child|scheduler|kernel|actor|job)\b.{0,60})"),
    Word(who="RQ, PyTorch, Dramatiq", sought="unexpectedly",
         example="Work-horse was terminated unexpectedly (waitpid returned None)",
         pattern=r"unexpectedly\b", before=r".*\b(?:terminated|exited|crashed) "),
    Word(who="joblib", sought="unexpectedly",
         example="A worker process managed by the executor was unexpectedly terminated.",
         pattern=r"unexpectedly (?:terminated|exited|crashed)\b"),
    Word(who="pytest-xdist, VS Code", example="worker 'gw0' crashed while running 'test_a.py'",
         sought=" crashed", pattern=r" crashed\b",
         before=r"(?i:.*\b(?:worker|process|server|kernel)\b.{0,60})"),
    Word(who="pytest-xdist", example="replacing crashed worker gw1",
         sought="replacing crashed", pattern=r"replacing crashed worker"),
    Word(who="pytest-xdist", example="[gw0] node down: Not properly terminated",
         sought="Not properly terminated", pattern=r"node down: Not properly terminated"),
    Word(who="concurrent.futures", sought="terminated abruptly",
         example="A process in the process pool was terminated abruptly while the future",
         pattern=r"\bterminated abruptly\b"),
    Word(who="granian", example="[ERROR] Unexpected exit from worker-1",
         sought="Unexpected exit", pattern=r"Unexpected exit from worker"),
    Word(who="Ansible", example="[ERROR]: A worker was found in a dead state",
         sought="dead state", pattern=r"A worker was found in a dead state"),
    Word(who="django-q2", example="reincarnated monitor Process-1:4 after sudden death",
         sought="reincarnated", pattern=r"reincarnated .* after (?:sudden )?death\b"),
    Word(who="taskiq", example="worker-0 is dead. Scheduling reload.",
         sought=" is dead", pattern=r" is dead\b", before=r"(?i:.*\b(?:worker|process|child)\S*)"),
    Word(who="Jupyter", example="AsyncIOLoopKernelRestarter: restarting kernel (1/5), keep ports",
         sought="restarting kernel", pattern=r"restarting kernel \(\d"),
    Word(who="Parsl", example="Task failure due to loss of worker 3 on host mac",
         sought="loss of ", pattern=r"Task failure due to loss of (?:worker|manager)"),
    Word(who="Pebble", example="pebble.common.types.ProcessExpired: Abnormal termination",
         sought="ProcessExpired", pattern=r"ProcessExpired: Abnormal termination"),
    # SIGKILL.
    Word(who="gunicorn, Airflow, supervisord", cause=KILLED.name,
         example="Worker (pid:48815) was sent SIGKILL! Perhaps out of memory?", sought="SIGKILL",
         pattern=r"SIGKILL\b",
         before=r".*(?:was sent|(?:exited|died|killed|terminated|exit[ _]?codes?)\b.{0,50}"
         r"[ .:(<={-]) ?"),
    Word(who="Go programs, as overmind", example="web    | signal: killed", cause=KILLED.name,
         sought="ignal", pattern=r"ignal: killed\b"),
    Word(who="systemd", example="a.service: Main process exited, code=killed, status=9/KILL",
         cause=KILLED.name, sought="code", pattern=r"code=\w+, status=9/KILL\b"),
    Word(who="RQ", example="Work-horse terminated unexpectedly; waitpid returned 9",
         cause=KILLED.name, sought="waitpid returned", pattern=rf"waitpid returned (?:9|137){END}"),
    Word(who="zsh", example="zsh: killed     python app.py", cause=KILLED.name,
         sought="killed ", pattern=r"killed  ", before=r".*(?:\bz?sh: |[\d+-] )"),
    Word(who="bash", example="run.sh: line 3:  423 Killed: 9               python app.py",
         cause=KILLED.name, sought="Killed", pattern=r"Killed(?:: 9|  |\s*$)",
         before=r"|.*(?:\d |\| |[+-] {1,2})"),
    Word(who="kubectl", example="Reason:       OOMKilled", cause=KILLED.name,
         sought="Killed", pattern=r"\bOOMKilled\b"),
    Word(who="Linux", example="Out of memory: Killed process 423 (python)", cause=KILLED.name,
         sought="Killed", pattern=r"Killed process \d"),
    Word(who="Airflow", cause=KILLED.name,
         example="Job 7 was killed before it finished (likely due to running out of memory)",
         sought="killed ", pattern=r"killed before it finished"),
    # What names a library of macOS.
    Word(who="setproctitle's frame", example="darwin_set_process_title + 80", cause="setproctitle",
         sought="darwin_set_process_title", pattern=r"darwin_set_process_title"),
    Word(who="fork()'s frame", example="fork -> _pthread_atfork_child_handlers -> nw_settings",
         cause="fork", sought="_pthread_atfork", pattern=r"_pthread_atfork_child_handlers"),
    Word(who="Objective-C", cause="objective-c", sought="fork() was called",
         example="objc[1]: +[A initialize] may have been in progress when fork() was called.",
         pattern=r"when fork\(\) was called"),
    Word(who="CoreFoundation", cause="corefoundation", sought="ked and you cannot use",
         example="The process has forked and you cannot use this functionality safely.",
         pattern=r"forked and you cannot use"),
    Word(who="CoreFoundation", cause="corefoundation", sought="FORKED_AND_YOU",
         example="Break on __THE_PROCESS_HAS_FORKED_AND_YOU_CANNOT_USE_THIS_CORE",
         pattern=r"FORKED_AND_YOU_CANNOT"),
    Word(who="LLVM's OpenMP", example="OMP: Error #13: Assertion failure at kmp_runtime.cpp.",
         cause="blas", sought="OMP: Error", pattern=r"OMP: Error #13: Assertion failure at kmp"),
    # What kills nobody.
    Word(who="Airflow's server", cause=API.name, sought="Invalid auth tok",
         example='{"detail":"Invalid auth token: Signature verification failed"}',
         pattern=r"Invalid auth token"),
    Word(who="Airflow's server", cause=API.name, sought="/execution/",
         example='"PATCH /execution/task-instances/0193/run HTTP/1.1" 401 Unauthorized',
         pattern=r"/execution/.{0,300}\b40[13] "),
    Word(who="Airflow's worker", cause=API.name, sought="for url '",
         example="Client error '403 Forbidden' for url 'http://localhost:8080/execution/x'",
         pattern=r"'40[13] \w+' for url '[^']*/execution/"),
    Word(who="Celery", cause=BILLIARD.name, sought="not enough values to unpack",
         example='File "/x/celery/app/trace.py" not enough values to unpack (expected 3, got 0)',
         pattern=r"not enough values to unpack \(expected 3, got 0\)",
         above=r"\b(?:celery|billiard)/"),
)


class Harmless(NamedTuple):
    """What looks like a death and is none."""

    example: str
    sought: str  # a literal in it
    pattern: str  # What it matches is taken out of the line.


MAY = r"(?:also )?(?:be caused|cause|crash|end|lead|segfault)\b"
OF = r"(?:\w+ ){0,3}(?:crash|segfault|[Ss]egmentation|SIG[A-Z])"

HARMLESS = (
    Harmless("registered handlers for SIGSEGV", "handler", r"\bhandlers?\b.{0,20}\bSIG\w+"),
    Harmless("installing a SIGSEGV handler", "handler", r"SIG\w+(?:'s)? (?:signal )?handler"),
    Harmless("    signal.signal(SIGSEGV, on_crash)", "l(SIG", r"signal\(SIG\w+, .*"),
    Harmless("    sigaction(SIGSEGV, &action, 0);", "n(SIG", r"sigaction\(SIG\w+, .*"),
    Harmless("    signal.SIGSEGV: 'Segmentation fault',", " signal.SIG", r" signal\.SIG.*"),
    Harmless("    handle(signal.SIGSEGV)", "(signal.SIG", r"\(signal\.SIG\w+"),
    Harmless("it handles SIGSEGV, SIGBUS, SIGFPE", ", SIG", r"SIG\w+, SIG.*"),
    Harmless("SIGSEGV (Segmentation Violation) signal indicates", "signal indicates",
             r"SIG\w+ \(.*signal indicates"),
    # What may happen, or happens no more.
    Harmless("This could be caused by a segmentation fault", "could ", rf"could {MAY}.*"),
    Harmless("it may crash with SIGSEGV", "may ", rf"may {MAY}.*"),
    Harmless("it might end in a segfault", "might ", rf"might {MAY}.*"),
    Harmless("9f1c2d3 Fix segfault in worker (#1593)", "Fix", rf"Fix(?:e[sd])?:? {OF}.*"),
    Harmless("fix: SIGSEGV in workers on macOS", "fix", rf"fix(?:e[sd])?:? {OF}.*"),
    Harmless("bus error rate: 0.01", "us error", r"us error (?:rate|count)s?\b"),
    Harmless("exit_code=<Negsignal.SIGKILL: -9> signal_sent=SIGKILL", "SIGKILL",
             r"exit_code\W.*signal_sent\W{1,3}SIGKILL.*"),
    Harmless("stopped: web (terminated by SIGKILL)", "stopped: ",
             r"stopped: .* \(terminated by SIGKILL\)"),
)
# fmt: on
# What these commands print, maybe quoted, or behind a program's name and a bar.
OWN = re.compile(
    rb"(?:"
    + BEFORE.pattern
    + rb")?\s*(?:(?:line  | {8}|frame )\| |with(?:out)? the shim |\d+ signs? of "
    rb"|\"(?:quote|frame|says|SIG\w+)\": )"
)
SOUGHT = tuple(dict.fromkeys(row.sought.encode() for row in (*WORDS, *HARMLESS)))
HARMLESS_BY_LITERAL: dict[bytes, list[re.Pattern[bytes]]] = {
    literal: [
        re.compile(row.pattern.encode()) for row in HARMLESS if row.sought.encode() == literal
    ]
    for literal in SOUGHT
}
# What stands before a word, without a blank between, if it is part of a path or of an address.
ADDRESS = re.compile(rb"['(=]*/|.*(?:://|[?&])")
RANK = {cause.name: number for number, cause in enumerate(ALL)}
NOTES = {cause.name for cause in ALL if cause.is_note}
LOOK_BACK = 300  # bytes before a word, at most, that are looked at


class Told(NamedTuple):
    """What a line tells of a death."""

    cause: str
    start: int  # of the words that do
    word: Word  # their row


class Row(NamedTuple):
    """A wording, made ready."""

    word: Word
    pattern: re.Pattern[bytes]
    before: re.Pattern[bytes] | None
    rank: int  # of the cause that tells most, of those that it may tell

    def found(self, line: bytes) -> Told | None:
        """Return what the wording tells, if it stands in a line."""
        found = self.pattern.search(line)
        while found and self.before:
            start = found.start()
            if self.before.fullmatch(line, max(0, start - LOOK_BACK), start):
                break
            found = self.pattern.search(line, found.end())
        if not found:
            return None
        cause = KILLED.name if found.lastgroup == "killed" else self.word.cause
        return Told(cause, found.start(), self.word)


def _row(word: Word) -> Row:
    pattern = re.compile(word.pattern.encode())
    before = re.compile(word.before.encode()) if word.before else None
    return Row(word, pattern, before, RANK[KILLED.name if pattern.groupindex else word.cause])


BY_LITERAL: dict[bytes, list[Row]] = {
    literal: [_row(word) for word in WORDS if word.sought.encode() == literal]
    for literal in {word.sought.encode() for word in WORDS}
}


def read(line: bytes, literals: Sequence[bytes]) -> Told | None:
    """Return what a line tells of a death, of several words by that which tells most; `literals`:
    those of SOUGHT that the line has."""
    for literal in literals:
        for pattern in HARMLESS_BY_LITERAL.get(literal, ()):
            line = pattern.sub(lambda part: b" " * len(part[0]), line)
    told, rank = None, len(RANK)
    for literal in literals:
        for row in BY_LITERAL.get(literal, ()):
            if row.rank < rank and (found := row.found(line)) and RANK[found.cause] < rank:
                told, rank = found, RANK[found.cause]
    if told and told.cause not in NOTES and _is_in_address(line, told.start):
        return None
    return told


def _is_in_address(line: bytes, start: int) -> bool:
    """Return whether what begins there is part of a path or of an address."""
    if line[start - 1 : start] in (b" ", b'"', b""):
        return False
    word = max(line.rfind(b" ", 0, start), line.rfind(b'"', 0, start)) + 1
    return bool(ADDRESS.match(line, word, start))


def _looks_at_numbers(row: Word | Harmless) -> bool:
    """Return whether a row tells more of one number than of another."""
    pattern = row.pattern + getattr(row, "before", "")
    return bool(re.search(r"[0-9]|\\d", re.sub(r"\{[0-9,]+\}", "", pattern)))


# The literals of those rows.
WITH_NUMBERS = frozenset(
    row.sought.encode() for row in (*WORDS, *HARMLESS) if _looks_at_numbers(row)
)


def is_own(line: bytes) -> bool:
    """Return whether a line was printed by one of these commands."""
    return bool(OWN.match(line.replace(NO_BREAK, b" ")))
