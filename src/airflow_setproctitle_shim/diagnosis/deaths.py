"""Deaths told of in logs: how many, of which program, why, and whether before or since the installation."""

from __future__ import annotations

import datetime
import io
import math
import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from . import signs
from .finding import Answer, Finding, Read

BLOCK, LINE = 2**20, 2**16  # A block is read to the end of its last line, if that is not far.
OVERLAP = 2**10  # of a longer line's parts, longer than any sentence
CHUNK = 2**16  # read at a time when a time is looked for in what was read before
BURST = 60.0  # seconds between two lines of which no line tells of the other's death
NEWLINE = b"\n"
ANSI, PREFIX = re.compile(signs.ANSI), re.compile(signs.PREFIX)
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".Z", ".lz4", ".7z")
CAUSES = [cause.name for cause in signs.CAUSES]
FRAME = re.compile(rb'File \\*"([^"\\]+(?:\\\\[^"\\]+)*)\\*", line \d+,? in ([^\s"\\]+)')
DUMP_ENDS = re.compile(rb"Extension modules:|Fatal Python error:|most recent call first")
AHEAD, FRAMES = 2**16, 8  # bytes and frames of a dump that are looked at
AIRFLOW_3 = re.compile(
    rb"api-server +\||dag-processor +\||\bairflow\.sdk\.|\bapi_server_command\.py|\[supervisor\]|/execution/"
)


@dataclass
class Tally:
    """How many, before and since the installation and without a time, and where the first stands."""

    first: str = ""
    before: int = 0
    since: int = 0
    undated: int = 0

    def add(self, side: str, number: int = 1) -> None:
        setattr(self, side, getattr(self, side) + number)


@dataclass
class Logs:
    """What was read, and what it tells."""

    installed_at: float
    read: list[Read] = field(default_factory=list)
    deaths: dict[tuple[str, str], Tally] = field(default_factory=dict)  # by program and cause
    refused: dict[str, Tally] = field(default_factory=dict)  # by program: 401 or 403 of the execution API
    span: signs.Span = (signs.NEVER[1], signs.NEVER[0])
    airflow_3: bool = False  # some of it was written by Airflow 3
    dumps: bool = False  # faulthandler was on in some program

    def total(self, side: str) -> int:
        return sum(getattr(tally, side) for tally in self.deaths.values())


class Story:
    """The deaths that a program's lines in one file tell of, each counted once.

    Lines tell of one death if they name the same process or job. Of those that name none, the first of
    one wording and the first of another wording of the same family tell of the first death, and so on;
    a dump goes with any family. What is more than a minute later is another story (`BURST`).
    """

    def __init__(self) -> None:
        self.last = math.nan
        self.begin()

    def begin(self) -> None:
        self.known: dict[bytes, tuple[float, int | None]] = {}
        self.told: dict[tuple[str, int], int] = {}
        self.families: dict[str, int] = {}
        self.deaths = 0
        self.unexplained: deque[tuple[str, str]] = deque(
            maxlen=1000
        )  # program and side of deaths without a cause

    def is_new(self, number: int, name: bytes, time: signs.Span) -> bool:
        """Return whether a sentence (its number, the process or job it names, its time) tells of another death."""
        if time[1] < math.inf:  # the latest that it can mean, for all times that are written in one way
            if abs(time[1] - self.last) > BURST:
                self.begin()
            self.last = time[1]
        sentence = signs.SENTENCES[number]
        if name:
            seen, by = self.known.pop(name, (0.0, None))
            self.known[name] = self.last, number
            if by is not None and (by != number or sentence.repeated or not abs(self.last - seen) > 2):
                return False
            if len(self.known) > 10_000:
                del self.known[next(iter(self.known))]
            number = -1 if name.isdigit() else -2  # One process, one job: the wording does not matter.
        key = sentence.family, number
        self.told[key] = self.told.get(key, 0) + 1
        self.families[sentence.family] = max(self.families.get(sentence.family, 0), self.told[key])
        dumps = self.families.get(signs.DUMP, 0)
        deaths = max(dumps, sum(self.families.values()) - dumps)
        new, self.deaths = deaths > self.deaths, deaths
        return new


def read(places: Sequence[Path], installed_at: float, progress: Callable[[str], None]) -> Logs:
    """Return what the logs at or below the places tell. `installed_at`: seconds since the epoch. Never
    raises for a file: what could not be read is in the answer, with the reason."""
    logs = Logs(installed_at)
    for path, program, why in _files(places):
        progress(f"reading {path}")
        done = 0
        try:
            if not why:
                with path.open("rb") as file:
                    for done, why in _File(path, program, file, logs).read():  # noqa: B007
                        pass
        except OSError as error:
            why = error.strerror or str(error)
        logs.read.append(Read(path, done, why))
    return logs


def _files(places: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """Yield each file, what it is the log of by its place, and why it is not read, "" if it is."""
    for place in places:
        if not place.is_dir():
            yield place, place.stem, _unreadable(place.resolve())
            continue
        failed: list[OSError] = []
        for directory, _, names in os.walk(place, onerror=failed.append):
            for path in (Path(directory, name) for name in sorted(names)):
                inside = path.relative_to(place).parts
                yield path, inside[0] if len(inside) > 1 else path.stem, _unreadable(path)
        for error in failed:
            yield Path(str(error.filename)), "", error.strerror or str(error)


def _unreadable(path: Path) -> str:
    """Return why the file is not opened, "" if it may be."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return error.strerror or str(error)
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    return f"{path.suffix} is packed" if path.suffix in PACKED else ""


class _File:
    """A log that is read in constant memory, however large it and its lines are."""

    def __init__(self, path: Path, program: str, file: BinaryIO, logs: Logs) -> None:
        self.path, self.program, self.file, self.logs = path, program, file, logs
        self.left = os.fstat(file.fileno()).st_size  # A log may grow faster than it can be read.
        self.start, self.number, self.block = 0, 1, b""  # where the block begins, its first line, its bytes
        self.stories: dict[bytes, Story] = {}
        self.dated = 0, signs.NEVER  # how far times were looked for, and the last one found

    def read(self) -> Iterator[tuple[int, str]]:
        """Yield how many bytes were read so far, and why no more are, "" if they are."""
        more, end = self._more(), 0
        if b"\0" in more[:CHUNK]:
            yield 0, "not text"
            return
        self.logs.airflow_3 |= bool(AIRFLOW_3.search(more))
        self._note_times(more[:CHUNK])
        while more:
            following, continued = self._more(), bool(self.block[end:])
            self.block, self.start = self.block[end:] + more, self.start + end
            # The end of a part of a very long line is read again with the next part.
            end = len(self.block) - (OVERLAP if following and not self.block.endswith(NEWLINE) else 0)
            for begin, stop in _candidates(self.block):
                self._line(begin, stop, end, continued and not begin)
            self.number += self.block.count(NEWLINE, 0, end)
            more = following
            yield self.start + end, ""
        self._note_times(self.block[-CHUNK:])

    def _note_times(self, text: bytes) -> None:
        """Extend the span of times that were read by those of the text."""
        for span in filter(None, map(signs.moment, signs.DATED.finditer(text))):
            written = span[1] - (0 if span[0] == span[1] else signs.WEST.total_seconds())
            self.logs.span = min(self.logs.span[0], written), max(self.logs.span[1], written)

    def _more(self) -> bytes:
        """Return the next lines, without their end if that is far."""
        more = self.file.read(min(BLOCK, self.left))
        more += self.file.readline(min(LINE, self.left - len(more))) if more else b""
        self.left -= len(more)
        return more

    def _line(self, begin: int, stop: int, end: int, continued: bool) -> None:
        """Count what a line, or a part of it that is `continued`, tells; from `end` on, the next part does."""
        line = self.block[begin:stop]
        prefix = None if continued else PREFIX.match(line)
        text = ANSI.sub(b"", line[prefix.end() if prefix else 0 :])
        for number, sentence in enumerate(signs.SENTENCES):
            if sentence.pattern.search(text):
                when = self._when(begin, line, continued)
                for found in sentence.pattern.finditer(text):
                    if continued < found.start() + 1 <= len(text) - max(0, stop - end):
                        self._tell(number, found, prefix[1] if prefix else b"", when, begin, stop)
                return

    def _tell(
        self, number: int, found: re.Match[bytes], prefix: bytes, when: signs.Span, begin: int, stop: int
    ) -> None:
        """Count a death or a refusal, if it is another one than those that were told of."""
        sentence, groups, text = signs.SENTENCES[number], found.groupdict(), found.string
        if sentence.family == signs.GENERAL and (
            signs.NO_NEWS.search(text, max(0, found.start() - 150), found.start())
            or signs.EXPLAINED.match(text, found.end())
        ):
            return
        pid = found if groups.get("pid") else signs.PID.search(text)
        name = b"job " + groups["job"] if groups.get("job") else pid["pid"] if pid else b""
        who = groups.get("who") or prefix
        program, side = who.decode() or self.program, signs.side(when, self.logs.installed_at)
        refused = sentence.family == signs.REFUSED
        key = b" " if refused else who if sentence.family == signs.DOCKER else prefix
        story = self.stories.setdefault(key, Story())
        new = story.is_new(number, b"" if refused else name, when)
        if refused:
            if new:
                self._count(self.logs.refused, program, side, begin)
            return
        cause = signs.OBJECTIVE_C if sentence.family == "objc" else signs.UNKNOWN
        if sentence.family == signs.DUMP:
            self.logs.dumps = True
            cause = signs.cause_of(self._frames(stop, prefix)).name
            if not new and story.unexplained:  # What was told of before is explained now.
                program, side = story.unexplained.popleft()
                self.logs.deaths[program, signs.UNKNOWN].add(side, -1)
                new = True
        elif new and cause == signs.UNKNOWN:
            story.unexplained.append((program, side))
        if new:
            self._count(self.logs.deaths, (program, cause), side, begin)

    def _count(self, tallies: dict[Any, Tally], key: object, side: str, begin: int) -> None:
        tally = tallies.setdefault(key, Tally())
        tally.first = tally.first or f"{self.path}:{self.number + self.block.count(NEWLINE, 0, begin)}"
        tally.add(side)

    def _frames(self, stop: int, prefix: bytes) -> list[str]:
        """Return the innermost frames ("file function") of the dump whose first line ends at `stop`."""
        frames: list[str] = []
        current = False
        for line in io.BytesIO(self._at(self.start + stop, AHEAD)):
            its = PREFIX.match(line)
            if (its[1] if its else b"") != prefix:
                continue
            if b"Current thread 0x" in line:
                current, frames = True, []
            elif frames and current and DUMP_ENDS.search(line) or len(frames) == FRAMES:
                break
            elif frame := FRAME.search(line):
                frames.append(b" ".join(frame.groups()).decode(errors="replace"))
        return frames

    def _at(self, offset: int, length: int) -> bytes:
        """Return what stands there, in the block or not."""
        begin = offset - self.start
        if begin >= 0 and begin + length <= len(self.block):
            return self.block[begin : begin + length]
        here = self.file.tell()
        self.file.seek(offset)
        there = self.file.read(length)
        self.file.seek(here)
        return there

    def _when(self, begin: int, line: bytes, continued: bool) -> signs.Span:
        """Return the line's time, else that of the last dated line before it, else signs.NEVER."""
        here = self.start + begin
        own = None if continued else signs.DATED.match(line)
        when = signs.moment(own) if own else None
        known, last = self.dated
        stop = here
        while when is None and stop > known:
            start = max(known, stop - CHUNK)
            chunk = self._at(start, stop - start)
            # The first line is cut, unless it stands where a search ended before.
            cut = 0 if start == known else chunk.find(NEWLINE, 0, -1) + 1
            for found in signs.DATED.finditer(chunk, cut) if cut or start == known else ():
                when = signs.moment(found) or when
            stop = start + (cut or OVERLAP if start > known else 0)
        when = when or last
        self.dated = here, when
        return when


def _candidates(block: bytes) -> list[tuple[int, int]]:
    """Return where the lines begin and end that may hold a sentence."""
    lines = {}
    for needle in signs.NEEDLES:
        place = block.find(needle)
        while place >= 0:
            begin, stop = block.rfind(NEWLINE, 0, place) + 1, block.find(NEWLINE, place)
            lines[begin] = stop = stop if stop >= 0 else len(block)
            place = block.find(needle, stop)
    return sorted(lines.items())


def crashes(logs: Logs, remedy: str) -> Answer:
    """Return what the logs tell of deaths. `remedy` is what switches the shim on, "" if it is on."""
    counts = {side: logs.total(side) for side in signs.SIDES}
    answer = Answer(looked_at(logs), read=logs.read)
    rows = [
        {
            "program": program,
            "cause": cause,
            **{side: getattr(tally, side) for side in signs.SIDES},
            "first": tally.first,
        }
        for (program, cause), tally in sorted(logs.deaths.items())
        if any(getattr(tally, side) for side in signs.SIDES)
    ]
    if rows:
        evidence = (
            f"{counts['since']} {'death' if counts['since'] == 1 else 'deaths'} by SIGSEGV or Objective-C's abort "
            f"since the shim was installed, {counts['before']} before, {counts['undated']} undated"
        )
        details = tuple(
            "{program}: {since} since, {before} before, {undated} undated; cause: {cause}; first at {first}".format(
                **row
            )
            for row in rows
        )
        answer.findings.append(
            Finding(
                "error" if counts["since"] else "note",
                evidence,
                _remedy(rows, remedy),
                tuple(
                    dict.fromkeys(
                        source for row in rows for source in signs.cause_named(row["cause"]).sources
                    )
                ),
                details,
                {"counts": counts, "by": rows},
            )
        )
    if logs.airflow_3 and not logs.dumps:
        evidence = (
            "Airflow 3 logs no death of its workers unless faulthandler is on, and no log shows that it was"
        )
        answer.findings.append(Finding("note", evidence, WATCH))
    if not any(not read.skipped for read in logs.read):
        answer.findings.append(
            Finding("note", f"no log was found to look for deaths in: {looked_at(logs)}", WATCH)
        )
    return answer


WATCH = (
    "start the programs with PYTHONFAULTHANDLER=1 and keep what they print, then name it with --logs; on macOS "
    "look at the crash reports, which the system writes in any case"
)


def _remedy(rows: list[dict[str, Any]], switch_on: str) -> str:
    """Return what helps against the deaths since the installation, by their causes."""
    since = {
        cause: [row["program"] for row in rows if row["since"] and row["cause"] == cause] for cause in CAUSES
    }
    remedies = []
    if names := since[signs.SETPROCTITLE] or (switch_on and since[signs.UNKNOWN]):
        on = (
            f"{switch_on}; then restart"
            if switch_on
            else "restart what may run since before the installation:"
        )
        remedies.append(f"{on} {', '.join(names)}")
    remedies += [signs.cause_named(cause).remedy for cause, names in since.items() if names]
    if since[signs.UNKNOWN]:
        remedies.append(f"to see the cause, {WATCH}")
    if remedies:
        return "; ".join(filter(None, remedies))
    if any(row["undated"] for row in rows):
        return "tell by the lines where they stand whether they are newer than the installation"
    return "nothing to do: none is newer than the installation"


def looked_at(logs: Logs) -> str:
    """Return in a sentence what was read: "read 3 logs, 12.1 MB, 2026-10-02 to 2026-11-22; 2 .gz not read"."""
    whole = [read for read in logs.read if not read.skipped]
    size = sum(read.bytes for read in logs.read)
    text = f"read {len(whole)} {'log' if len(whole) == 1 else 'logs'}, {size / 1e6:.1f} MB"
    if logs.span[0] <= logs.span[1]:
        text += ", {} to {}".format(
            *(datetime.datetime.fromtimestamp(t, signs.UTC).date() for t in logs.span)
        )
    skipped = Counter(
        read.path.suffix if read.path.suffix in PACKED else f"{read.skipped}:"
        for read in logs.read
        if read.skipped
    )
    return "; ".join([text, *(f"{number} {what} not read" for what, number in sorted(skipped.items()))])
