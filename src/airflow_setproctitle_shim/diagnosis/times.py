"""The times that lines of a log begin with, and which moments they can mean."""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

SIDES = ("before", "since", "undated")
UTC = datetime.timezone.utc
EAST, WEST = 14 * 3600.0, 12 * 3600.0  # of all zones, in seconds
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

# The name that `airflow standalone`, docker compose, honcho and foreman put before each line of a program.
ANSI = rb"(?:\x1b|\\u001b|#033)\[[\d;]*m"
PREFIX = rb"(?:%b)*(?:\d\d:\d\d:\d\d )?([A-Za-z][\w.-]{1,60}) *(?:%b)* ?\| ?(?:%b)*" % (ANSI, ANSI, ANSI)
# A line's own time stands at its start or is a value in JSON; times elsewhere are data.
WORDS = rb"(?i:trace|debug|info|notice|warn(?:ing)?|error|critical|fatal|timestamp|asctime|(?:event)?time|ts|date(?:time)?)"
DATED = re.compile(
    rb"(?m)^(?:" + PREFIX + rb")?(?:"
    rb"(?:(?:[^a-zA-Z\n]|" + ANSI + rb"|\b" + WORDS + rb"\b){0,48}?|\{.{0,4000}?\"@?" + WORDS + rb"\": ?\")"
    rb"(?<!\d)((?:199|20\d)\d[-/]\d\d[-/]\d\d)(?:[Tt ]|, ?)"
    rb"|(?:[^a-zA-Z\n]{0,9}[A-Z][a-z][a-z] )?([A-Z][a-z][a-z] +[0-3]?\d) )"
    rb"([0-2]\d:[0-5]\d):([0-6]\d)(?:([.,])\d+)?(?: ?((?:[Zz]|UTC|GMT)\b|[+-]\d\d:?\d\d(?!\d)))?(?: (\d{4})\b)?"
)
# Other times that a line may begin with, after a host, a program or a logger. Of some nothing can be read.
EPOCH = re.compile(rb"\{.{0,4000}?\"@?" + WORDS + rb"\": ?\"?(1\d{9})(?:\d{3}|\.\d+)?[\",}]")
OTHER = re.compile(
    rb"(?:\[?[\w./@-]{1,60}[]:]{1,2} ?|[\w-]{0,60}[\d.][\w./-]{0,60} (?:\w{1,60} )?){0,2}?[^\w\n]{0,3}"
    rb"((?:\d\d/[A-Z][a-z][a-z]/\d{4}:|20\d\d-\d\d-\d\d[Tt ]|20\d{6}T\d|[0-2]\d:[0-5]\d(?::|[] ,.Z])).{0,40})"
)


class Moment(NamedTuple):
    """What a written time can mean: at the earliest and at the latest, in seconds since the epoch."""

    earliest: float
    latest: float
    way: bytes  # how it is written; b"" if with a zone


NEVER = Moment(-math.inf, math.inf, b"never")


def moment(found: re.Match[bytes] | None) -> Moment | None:
    """Return what a match of DATED can mean, None if there is no such time."""
    if not found:
        return None
    _, date, day, minute, second, fraction, zone, year = found.groups(b"")
    try:
        at = _minute(date, day, year, minute, zone) + int(second)
    except ValueError:
        return None
    if zone and (date or year):
        return Moment(at, at, b"")
    return Moment(at - EAST if date or year else -math.inf, at + WEST, (date[4:5] or b"month") + fraction)


def own(line: bytes) -> Moment | None:
    """Return what the time can mean that a line begins with: NEVER if it cannot be read, None if it has none."""
    if epoch := EPOCH.match(line):
        return Moment(float(epoch[1]), float(epoch[1]), b"")
    if not (other := OTHER.match(line)):
        return None
    clf = re.sub(rb"^(\d\d)/(\w{3})/(\d{4}):(\S+ \S{5})", rb"\2 \1 \4 \3", other[1])
    return moment(DATED.match(clf)) or NEVER


@functools.lru_cache(maxsize=64)
def _minute(date: bytes, day: bytes, year: bytes, minute: bytes, zone: bytes) -> float:
    if not date:  # Without a year it is of the last one that had the day, or of any before.
        tomorrow = datetime.datetime.now(UTC) + datetime.timedelta(days=1)
        its = MONTHS.index(day[:3]) + 1, int(day[3:])
        date = b"%d-%02d-%02d" % (int(year or tomorrow.year - (its > (tomorrow.month, tomorrow.day))), *its)
    offset = zone[:3] + b":" + zone[-2:] if zone[:1] in (b"+", b"-") else b"+00:00"
    text = b"%bT%b:00%b" % (date.replace(b"/", b"-"), minute, offset)
    return datetime.datetime.fromisoformat(text.decode()).timestamp()


def apart(one: Moment, other: Moment) -> float:
    """Return how many seconds lie between two moments at least; those written in one way are of one zone."""
    if one.way == other.way:
        return abs(one.latest - other.latest) if one != other else 0
    return max(0, one.earliest - other.latest, other.earliest - one.latest)


def zones(text: bytes) -> dict[bytes, float]:
    """Return the offset from UTC of the times without a zone, by how they are written, where the text shows it:
    each that stands between two with a zone, a minute apart at most, has the same."""
    offsets: dict[bytes, set[float]] = {}
    before, between = -math.inf, list[Moment]()
    for its in filter(None, map(moment, DATED.finditer(text))):
        if not its.way:
            for one in between if its.latest - before <= 60 else ():
                offset = round((one.latest - WEST - its.latest) / 900) * 900.0
                offsets.setdefault(one.way, set()).add(offset)
            before, between = its.latest, []
        elif math.isfinite(its.earliest):
            between.append(its)
    return {way: offset.pop() for way, offset in offsets.items() if len(offset) == 1}


def side(when: Moment, installed_at: float, zones: Callable[[], dict[bytes, float]] = dict) -> str:
    """Return whether it was before or since the installation, whatever the zone, or neither can be told; `zones`
    is asked for those that the text around it shows."""
    if when.earliest >= installed_at:
        return "since"
    if when.latest < installed_at:
        return "before"
    if (offset := zones().get(when.way)) is None:
        return "undated"
    return "since" if when.latest - WEST - offset >= installed_at else "before"
