"""Looks where macOS and Airflow write, or at what it is given, and says of the deaths found, cause
by cause, how sure that is and what helps."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator

from . import advice, causes
from .advice import DUMP, LINE, REPORT
from .pieces import Reader, Sign, earliest
from .status import Status, status

NOTHING = (
    "No line here names a signal that kills (SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGTRAP, SIGKILL), "
    "and no program says that a worker died. Not every program logs it."
)
NOT_ALONE = "The shim alone does not prevent this."
TOO = "This may be about the deaths above, too: see first to those."
ON_LINUX = "The paths in the dump are Linux's: there the shim does nothing."
CUT_OFF = "a crash report in it is cut off: what is left of it was read"
ADMINISTRATOR = "an administrator may read it"
MACOS = "Library/Logs/DiagnosticReports"


@dataclasses.dataclass(frozen=True)
class Last:
    """The last sign of a cause."""

    place: str
    time: str
    quote: str


@dataclasses.dataclass(frozen=True)
class Death:
    """What is to be said of one cause."""

    cause: str
    sure: str  # by a "report", a "dump" or a "line"
    says: str
    label: str  # "fix" for advice that is known to help, else "try"
    advice: list[str]  # none for what may tell of deaths whose cause is known
    source: str
    prevented: bool | None
    attention: bool
    count: int
    last: Last
    frame: str  # of its dump, which suggests the cause


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `doctor` tells."""

    ok: bool
    shim: Status
    says: str
    deaths: list[Death]
    notes: list[Death]  # of what killed nobody
    advice: list[str]  # where there are no deaths
    looked_at: dict[str, int]
    missing: list[str]
    not_read: list[dict[str, str]]

    def as_json(self) -> dict[str, object]:
        """Return what `doctor --json` prints."""
        return {**dataclasses.asdict(self), "shim": self.shim.as_json()}


class Found:
    """The signs of one cause; made with the first."""

    def __init__(self, sign: Sign) -> None:
        self.count = 0
        self.read: set[str] = set()
        self.is_of_linux = True  # all of it
        self.last = sign
        self.add(sign)

    def add(self, sign: Sign) -> None:
        """Count a sign, and keep it if none was later."""
        self.count += sign.number
        self.read.add(sign.read)
        self.is_of_linux &= sign.is_of_linux
        if earliest(sign.time) >= earliest(self.last.time):
            self.last = sign

    @property
    def sure(self) -> str:
        """The surest kind of what was read."""
        return next(kind for kind in (REPORT, DUMP, LINE) if kind in self.read)


class Seen:
    """All that was seen."""

    def __init__(self, named: list[str]) -> None:
        self.named = named
        self.found: dict[str, Found] = {}
        self.looked_at: Counter[str] = Counter()
        self.not_read: dict[str, str] = {}  # why, by path

    def read(self, path: str) -> None:
        """Read one file."""
        reader = Reader(path)
        try:
            for sign in reader.signs():
                if sign.cause in self.found:
                    self.found[sign.cause].add(sign)
                else:
                    self.found[sign.cause] = Found(sign)
        except PermissionError as error:
            self.not_read[path] = f"{error.strerror}: {ADMINISTRATOR}"
        except (OSError, ValueError) as error:
            self.not_read[path] = getattr(error, "strerror", None) or str(error)
        except (EOFError, zlib.error):
            self.not_read[path] = "broken gzip data: copy it again; what could be unpacked was read"
        if reader.is_cut_off:
            self.not_read[path] = CUT_OFF
        self.looked_at += reader.looked_at

    def deaths(self, installed: str) -> Iterator[Death]:
        """Yield what is to be said of each cause."""
        read = {kind for found in self.found.values() for kind in found.read}
        if not self.named:
            read.add(REPORT)  # All that this Mac has.
        since = None if self.named else earliest(installed)
        is_known = any(cause.name in self.found for cause in causes.CAUSES)
        for cause in causes.ALL:
            if found := self.found.get(cause.name):
                yield _death(cause, found, read, since, is_known)


def diagnose(named: list[str]) -> Diagnosis:
    """Diagnose the files and directories named ("-": standard input), or else the places where
    macOS and Airflow write."""
    shim, seen = status(), Seen(named)
    places = list(dict.fromkeys(named)) or _places()
    for path in _files(places, seen.not_read):
        seen.read(path)
    told = list(seen.deaths(shim.installed))
    deaths = [death for death in told if not causes.BY_NAME[death.cause].is_note]
    needs_attention = any(death.attention for death in deaths)
    first = (advice.REPORTS, advice.FAULTHANDLER, advice.save())
    return Diagnosis(
        ok=shim.ok and not needs_attention and not set(named) & set(seen.not_read),
        shim=shim,
        says="" if deaths else NOTHING,
        deaths=deaths,
        notes=[death for death in told if death not in deaths],
        advice=[] if deaths else advice.lines(first, set() if named else {REPORT}),
        looked_at=dict(seen.looked_at),
        missing=[path for path in places if path != "-" and not os.path.exists(path)],
        not_read=[{"path": path, "why": why} for path, why in seen.not_read.items()],
    )


def _death(
    cause: causes.Cause, found: Found, read: set[str], since: float | None, is_known: bool
) -> Death:
    """Return what is to be said of a cause. `since`: when deaths begin to need attention, None if
    they all do; `is_known`: some death's cause is."""
    last = found.last
    repeats = cause is causes.UNKNOWN and is_known
    return Death(
        cause=cause.name,
        sure=found.sure,
        says=_says(cause, found, repeats),
        label="fix" if cause.is_note or (cause.is_cured and found.sure == REPORT) else "try",
        advice=[] if repeats else advice.lines(cause.helps, read),
        source=cause.source,
        prevented=cause.prevented,
        attention=_needs_attention(cause, last, since),
        count=found.count,
        last=Last(last.place, last.time, last.quote),
        frame=last.frame,
    )


def _says(cause: causes.Cause, found: Found, repeats: bool) -> str:
    """Return sentences about a cause: a report tells it, a dump suggests it."""
    if found.sure == LINE:
        told = [cause.line or cause.says]
    elif found.sure == DUMP and cause.was_doing:
        told = [cause.was_doing, ON_LINUX if found.is_of_linux else cause.often]
    else:
        told = [cause.says]
    if cause.prevented is False and cause in causes.CAUSES and not found.is_of_linux:
        told.append(NOT_ALONE)
    if repeats:
        told.append(TOO)
    return " ".join(filter(None, told))


def _needs_attention(cause: causes.Cause, last: Sign, since: float | None) -> bool:
    if cause.is_note or cause is causes.NOT_FORK:
        return False
    if since is None:
        return True
    if cause.prevented is False:
        variables = (f"{name}={value}" for name, value in os.environ.items())
        return not any(re.fullmatch(cause.cured_by, variable) for variable in variables)
    return earliest(last.time) > since


def _places() -> list[str]:
    reports = [os.path.expanduser(f"{home}/{MACOS}") for home in ("~", "")]
    home = os.path.expanduser(os.environ.get("AIRFLOW_HOME") or "~/airflow")
    logs = [
        path for end in ("log", "out", "err") for path in glob.glob(f"{glob.escape(home)}/*.{end}")
    ]
    return [*reports, os.path.join(home, "logs"), *sorted(logs)]


def _files(places: list[str], not_read: dict[str, str]) -> Iterator[str]:
    """Yield the files in the places that are there; note directories that cannot be read."""

    def note(error: OSError) -> None:
        path = os.fsdecode(error.filename)  # PyPy's scandir() gives bytes.
        not_read[path] = f"{error.strerror}: {ADMINISTRATOR}"

    for place in places:
        if os.path.isdir(place):
            for directory, _, names in os.walk(place, onerror=note):
                # macOS keeps reports of much else beside those of crashes.
                ends = (".ips", ".crash") if "DiagnosticReports" in directory else ("",)
                files = (
                    os.path.join(directory, name) for name in sorted(names) if name.endswith(ends)
                )
                yield from filter(os.path.isfile, files)
        elif place == "-" or os.path.exists(place):
            yield place
