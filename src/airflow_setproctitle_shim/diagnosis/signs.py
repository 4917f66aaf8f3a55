"""How trouble is written down: the sentences that tell of a death, the frames that tell its cause, and
the ways to write a time. Data for deaths.py and crash_reports.py."""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple


def _table(name: str, columns: int) -> Iterator[list[str]]:
    """Yield the columns of each line of a table that lies beside this module."""
    for line in (files(__package__) / name).read_text("ascii").splitlines():
        if not line.startswith("#"):
            yield [column.strip() for column in line.split("::", columns - 1)]


class Cause(NamedTuple):
    """Something that kills a process, and what helps against it; causes.txt says what is what."""

    name: str
    remedy: str
    source: str
    native: str
    python: str


SETPROCTITLE, OBJECTIVE_C, UNKNOWN = "setproctitle", "Objective-C +initialize", "unknown"
*_CAUSES, CALLERS = (Cause(*row) for row in _table("causes.txt", 5))
CAUSES = {cause.name: cause for cause in _CAUSES}


def cause_of_crash(text: str) -> Cause:
    """Return the cause that a crash report's lines "image symbol" and the system's notes tell."""
    return next(cause for cause in _CAUSES if re.search(cause.native, text))


def cause_of_dump(frames: list[str]) -> str:
    """Return the name of the cause that a dump's frames ("file function", innermost first) tell."""
    if frames and re.search(CALLERS.python, frames[0]):
        return SETPROCTITLE
    known = (c.name for frame in frames for c in _CAUSES if c.name != UNKNOWN and re.search(c.python, frame))
    return next(known, UNKNOWN)


class Sentence(NamedTuple):
    """One way to tell of a death; sentences.txt says what is what."""

    family: str
    words: bytes
    pattern: re.Pattern[bytes]
    repeated: bool


DUMP, GENERAL, REFUSED, DOCKER, OBJC = "dump", "general", "refused", "docker", "objc"
PARTS = {
    "{START}": r'(?:^|[]|>:}+-] |\dZ? |": ?"|\\n)\s{0,40}',
    "{FAULT}": r"egmentation fault(?:: 11)?(?:\s{0,40}\(core dumped\))?",
    "{CODE}": r"(?:<?Negsignal\.SIGSEGV|-SIGSEGV|-11|139)\b(?!\.?\d)",
}


def _sentence(family: str, words: str, pattern: str) -> Sentence:
    for name, part in PARTS.items():
        pattern = pattern.replace(name, part)
    return Sentence(family.rstrip("+"), words.encode(), re.compile(pattern.encode()), family.endswith("+"))


SENTENCES = tuple(_sentence(*row) for row in _table("sentences.txt", 3))
# Each line that has one of the sentences has one of these, and hardly any other line has.
NEEDLES = (
    b"SEGV",
    b"egmentation",
    b"egfault at",
    b"ignal 11",
    b" -11",
    b"=-11",
    b":-11",
    b"139",
    b"when fork() was",
    b" Unauthorized",
    b" Forbidden",
    b"nvalid auth token",
    b"waitpid",
)
# General words may be a rule, a guess, a denial or a memory instead: then these stand beside them.
NO_NEWS = re.compile(
    rb"(?i)^\s*(?:#|//)|\b(?:if|when|whenever|where|may|might|can|could|would|should|will|not|never|no|without|unless"
    rb"|whether|prevent\w*|avoid\w*|fix(?:e[sd])?|example|earlier|previous(?:ly)?|former(?:ly)?|used to|always"
    rb"|usually|means?|indicates?|0 (?:workers|processes|children|tasks))\b(?:[^.;!?:]|:(?! ))*$"
)
EXPLAINED = re.compile(rb"[^.;]{0,12}?\b(?:means?|indicates?|is|are|or|refers)\b")
PID = re.compile(rb"(?i)\bpid[\"']?\s{0,9}(?:[:=]\s{0,9})?(?P<pid>\d+)\b")

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


def apart(one: Span, other: Span) -> float:
    """Return how many seconds lie between two times at least; times written in one way are of one zone."""
    if (
        one[1] - one[0] == other[1] - other[0] < math.inf
        or one[0] == other[0] == -math.inf
        and NEVER not in (one, other)
    ):
        return abs(one[1] - other[1])
    return max(0.0, one[0] - other[1], other[0] - one[1])


# The name that `airflow standalone`, docker compose, honcho and foreman put before each line of a program.
ANSI = rb"(?:\x1b|\\u001b|#033)\[[\d;]*m"
COLOURS = rb"(?:" + ANSI + rb")*"
PREFIX = COLOURS + rb"(?:\d\d:\d\d:\d\d )?([A-Za-z][\w.-]{1,60}) *" + COLOURS + rb" ?\| ?" + COLOURS
CLOCK = rb"(\d\d):(\d\d):(\d\d)"
ZONE = rb"(?:[.,]\d+)? ?(Z|UTC|GMT|[+-]\d\d:?\d\d(?!\d))?"
LEVELS = rb"trace|debug|info|notice|warn(?:ing)?|error|critical|fatal|timestamp|asctime|time|ts|date"
# A line's own time stands at its start or is a value in JSON; times elsewhere are data.
LEAD = rb"(?:[^a-zA-Z\n]|" + ANSI + rb"|\b(?i:" + LEVELS + rb")\b){0,48}?"
DATED = re.compile(
    rb"(?m)^(?:" + PREFIX + rb")?(?:"
    rb"(?:" + LEAD + rb"|\{.{0,4000}?\"@?(?:" + LEVELS + rb")\": ?\")"
    rb"(?<!\d)(?P<iso>(\d{4})[-/](\d\d)[-/](\d\d)(?:[T ]|, ?)" + CLOCK + ZONE + rb")"
    rb"|[^a-zA-Z\n]{0,48}?(?P<access>(\d\d)/([A-Z][a-z][a-z])/(\d{4})[: ]" + CLOCK + ZONE + rb")"
    rb"|(?:[^a-zA-Z\n]{0,9}[A-Z][a-z][a-z] )?"
    rb"(?P<syslog>([A-Z][a-z][a-z]) +(\d{1,2}) " + CLOCK + rb"(?: (\d{4})\b)?))"
)
UTC = datetime.timezone.utc
EAST, WEST = 14 * 3600.0, 12 * 3600.0  # of all zones, in seconds


def moment(written: re.Match[bytes]) -> Span | None:
    """Return what a match of DATED can mean, None if there is no such day."""
    zone: bytes | None = None
    if written["iso"]:
        year, month, day, hour, minute, second, zone = written.group(3, 4, 5, 6, 7, 8, 9)
    elif written["access"]:
        day, month, year, hour, minute, second, zone = written.group(11, 12, 13, 14, 15, 16, 17)
    else:
        month, day, hour, minute, second, year = written.group(19, 20, 21, 22, 23, 24)
    midnight = _midnight(year, month, day)
    if midnight is None or hour > b"23" or minute > b"59" or second > b"60":
        return None
    at = midnight + 3600.0 * int(hour) + 60 * int(minute) + int(second)
    if not year:  # It is of this year or of any before.
        return -math.inf, at + WEST
    offset = _offset(zone) if zone else None
    return (at - EAST, at + WEST) if offset is None else (at - offset, at - offset)


@functools.lru_cache(maxsize=64)
def _offset(zone: bytes) -> int | None:
    """Return a zone's offset from UTC in seconds, None if there is no such zone."""
    digits = zone.replace(b":", b"").lstrip(b"ZUTCGM") or b"+0000"
    offset = 3600 * int(digits[:3]) + 60 * int(digits[:1] + digits[3:])
    return offset if -WEST <= offset <= EAST else None


def shape(written: re.Match[bytes]) -> bytes:
    """Return how the time is written, without its digits; b"" if that can have no zone."""
    return re.sub(rb"\d", b"", written["iso"] or b"")


def zones(text: bytes) -> dict[bytes, float]:
    """Return the offset from UTC, in seconds, of the times without a zone in a log, by their shape.

    Lines stand in the order of time, so a time between two that have a zone shows its own: it is the
    one quarter of an hour that makes it fit, give or take a minute.
    """
    bounds: dict[bytes, tuple[float, float]] = {}
    known = -math.inf
    unknown: dict[bytes, float] = {}
    for found in DATED.finditer(text):
        span = moment(found)
        if span is None or not found["iso"]:
            continue
        if span[0] == span[1]:
            for its, local in unknown.items():
                least, most = bounds[its]
                bounds[its] = max(least, local - span[0]), most
            known, unknown = span[0], {}
        else:
            local, its = span[0] + EAST, shape(found)
            least, most = bounds.get(its, (-math.inf, math.inf))
            bounds[its] = least, min(most, local - known)
            unknown[its] = local
    quarters = {
        its: (math.ceil((low - 60) / 900), math.floor((high + 60) / 900))
        for its, (low, high) in bounds.items()
        if high - low < EAST
    }
    return {its: 900.0 * low for its, (low, high) in quarters.items() if low == high}


@functools.lru_cache(maxsize=64)
def _midnight(year: bytes | None, month: bytes, day: bytes) -> float | None:
    """Return the start of a day of UTC; of one without a year the last that was."""
    today = datetime.datetime.now(UTC)
    try:
        number = int(month) if month.isdigit() else MONTHS.index(month.capitalize()) + 1
        at = datetime.datetime(int(year or today.year), number, int(day), tzinfo=UTC)
        if not year and at > today + datetime.timedelta(days=1):
            at = at.replace(year=at.year - 1)
    except ValueError:
        return None
    return at.timestamp() if 1990 <= at.year < 2100 else None  # A clock that was not set says nothing.
