"""What a log tells: its deaths and refusals, each counted once, and when they were."""

from __future__ import annotations

import functools
import io
import os
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from . import signs, times
from .finding import Read

BLOCK, LINE = 2**20, 2**22  # A block is read to the end of its last line, if that is not far.
AHEAD, FRAMES = 2**16, 8  # bytes and frames of a dump that are looked at
BURST = 60.0  # seconds between two lines that do not tell of one death
NAMES = 10_000  # processes and jobs that are remembered
NEWLINE = b"\n"
ANSI, PREFIX = re.compile(times.ANSI), re.compile(times.PREFIX)
DUMP_ENDS = re.compile(rb"Fatal Python error|Extension modules:")
CLOCK = re.compile(rb":\d\d:\d\d")
FRAME = re.compile(rb'File \\*"([^"]+?)\\*", line \d+,? in ([^\s"\\]+)')
AIRFLOW_3 = re.compile(
    rb"api-server +\||dag-processor +\||\bairflow\.sdk\.|\bapi_server_command\.py|\[supervisor\]|/execution/"
)


class Tally(Counter[str]):
    """How many by times.SIDES, and where the first stands: path:line."""

    first = ""


@dataclass
class Logs:
    """What was read, and what it tells."""

    installed_at: float
    read: list[Read] = field(default_factory=list)
    deaths: dict[tuple[str, str], Tally] = field(default_factory=dict)  # by program and cause
    refused: dict[str, Tally] = field(default_factory=dict)  # by program: 401 or 403 of the execution API
    span: list[float] = field(default_factory=list)  # the first and the last time, as written
    airflow_3: bool = False  # some of it was written by Airflow 3
    dumps: bool = False  # faulthandler was on in some program

    def total(self, side: str) -> int:
        return sum(tally[side] for tally in self.deaths.values())


class Story:
    """The deaths that a program's lines in one file tell of, each counted once.

    Lines tell of one death if they name the same process or job. Of those that name none, the first of
    one wording and the first of another wording of the same family tell of the first death, and so on;
    a dump goes with any family. What is more than a minute later is another story (`BURST`).
    """

    def __init__(self) -> None:
        self.last, self.deaths = times.NEVER, 0
        self.lines = Counter[tuple[str, int]]()  # by family and wording
        self.names: OrderedDict[bytes, tuple[times.Moment, int]] = OrderedDict()

    def is_new(self, told: signs.Told, when: times.Moment) -> bool:
        """Return whether what a line tells is another death than those told of before."""
        if when not in (self.last, times.NEVER):
            if times.apart(when, self.last) > BURST:
                self.deaths = 0
                self.lines.clear()
                self.names.clear()
            self.last = when
        wording = told.sentence
        if told.name:
            moment, before = self.names.get(told.name, (times.NEVER, -1))
            self.names[told.name] = self.last, wording
            # The number of a process can be given again.
            if before >= 0 and (before != wording or times.apart(self.last, moment) <= 2):
                return False
            if len(self.names) > NAMES:
                self.names.popitem(last=False)
            wording = -1 if told.name.isdigit() else -2  # One process, one job: the wording does not matter.
        self.lines[told.family, wording] += 1
        most: dict[str, int] = {}
        for (family, _), number in self.lines.items():
            most[family] = max(number, most.get(family, 0))
        known, self.deaths = self.deaths, max(most.pop(signs.DUMP, 0), sum(most.values()))
        return self.deaths > known


class LogFile:
    """A log that is read in constant memory, however large it and its lines are."""

    def __init__(self, path: Path, program: str, logs: Logs) -> None:
        self.path, self.program, self.logs = path, program, logs
        self.stories = defaultdict[bytes, Story](Story)
        self.number = 1  # of the block's first line
        self.head = self.block = self.following = b""
        self.dated, self.searched = times.NEVER, -1  # the last time, and the last line that was looked at

    def read(self) -> tuple[int, str]:
        """Read it, and return how many bytes were read, and why no more, "" if all."""
        with self.path.open("rb") as file:
            blocks = _blocks(file)
            self.head = self.following = next(blocks, b"")
            if b"\0" in self.head[:AHEAD]:
                return 0, "not text"
            self.logs.airflow_3 |= bool(AIRFLOW_3.search(self.head))
            first = times.DATED.search(self.head[:AHEAD])
            self._note(first and times.moment(first))
            done = 0
            while self.following:
                self.block, self.following, self.searched = self.following, next(blocks, b""), -1
                for begin in signs.lines(self.block):
                    self._line(begin)
                if CLOCK.search(self.block, max(0, self.searched)):
                    self._note(self._when(self.block.rfind(NEWLINE, 0, -1) + 1))
                self.number += self.block.count(NEWLINE)
                done += len(self.block)
        return done, ""

    def _note(self, when: times.Moment | None) -> None:
        """Extend the span of times that were read."""
        if when and when != times.NEVER:
            span = [*self.logs.span, when.latest - (times.WEST if when.way else 0)]
            self.logs.span = [min(span), max(span)]

    def _when(self, begin: int) -> times.Moment:
        """Return the time of the line that begins there, else of the last dated line before it, else NEVER."""
        at = begin
        while at > self.searched:
            found = times.DATED.match(self.block, at)
            if its := found and times.moment(found):
                self.dated = its
                break
            at = self.block.rfind(NEWLINE, 0, at - 1) + 1 if at else -1
        self.searched = begin
        return self.dated

    def _line(self, begin: int) -> None:
        """Count what the line that begins there tells."""
        stop = self.block.find(NEWLINE, begin)
        line = self.block[begin : stop if stop >= 0 else None]
        found = PREFIX.match(line) if b"| " in line[:99] else None
        prefix = found[1] if found else b""
        line = line[found.end() :] if found else line
        if b"\x1b" in line or b"u001b" in line or b"#033" in line:
            line = ANSI.sub(b"", line)
        tell = signs.told if len(line) < 1000 else signs.told.__wrapped__  # Long lines would fill the cache.
        for told in tell(line):
            self._count(told, prefix, begin)

    def _count(self, told: signs.Told, prefix: bytes, begin: int) -> None:
        """Count a death or a refusal, if it is another one than those that were told of."""
        who, when = told.who or prefix, self._when(begin)
        program, cause = who.decode() or self.program, signs.UNKNOWN
        tallies: dict[Any, Tally] = self.logs.deaths
        if told.family == signs.REFUSED:
            who, told, tallies = b" ", told._replace(name=b""), self.logs.refused
        elif told.family == signs.OBJC:
            cause = signs.OBJECTIVE_C
        elif told.family == signs.DUMP:
            self.logs.dumps = True
            cause = signs.cause_of_dump(self._frames(begin, prefix))
        if self.stories[who].is_new(told, when):
            key = program if told.family == signs.REFUSED else (program, cause)
            tally = tallies.setdefault(key, Tally())
            tally.first = tally.first or f"{self.path}:{self.number + self.block.count(NEWLINE, 0, begin)}"
            tally[self._side(when)] += 1

    def _side(self, when: times.Moment) -> str:
        its = times.side(when, self.logs.installed_at)
        if its == "undated" and when.way in self.zones:
            at = when.latest - times.WEST - self.zones[when.way]
            return times.side(times.Moment(at, at, b""), self.logs.installed_at)
        return its

    @functools.cached_property
    def zones(self) -> dict[bytes, float]:
        return times.zones(self.head)

    def _frames(self, begin: int, prefix: bytes) -> list[str]:
        """Return the innermost frames ("file function") of the dump that begins there."""
        frames: list[str] = []
        current = False
        lines = io.BytesIO(self.block[begin : begin + AHEAD] + self.following[:AHEAD])
        lines.readline()
        for line in lines:
            its = PREFIX.match(line)
            if (its[1] if its else b"") != prefix:
                continue
            if b"Current thread 0x" in line:
                current, frames = True, []
            elif DUMP_ENDS.search(line) or current and frames and b"most recent call first" in line:
                break
            elif frame := FRAME.search(line):
                frames.append(b" ".join(frame.groups()).decode(errors="replace"))
        return frames[:FRAMES]


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the whole lines that a file has now: it may grow faster than it can be read."""
    left = os.fstat(file.fileno()).st_size
    while block := file.read(min(BLOCK, left)):
        block += file.readline(min(LINE, left - len(block)))
        left -= len(block)
        yield block
