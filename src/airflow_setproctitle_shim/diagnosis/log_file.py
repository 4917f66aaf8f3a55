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
        wording = told.sentence.number
        if told.name:
            moment, before = self.names.get(told.name, (times.NEVER, -1))
            self.names[told.name] = self.last, wording
            # The number of a process can be given again.
            if before >= 0 and (before != wording or times.apart(self.last, moment) <= 2):
                return False
            if len(self.names) > NAMES:
                self.names.popitem(last=False)
            wording = -1 if told.name.isdigit() else -2  # One process, one job: the wording does not matter.
        self.lines[told.sentence.family, wording] += 1
        most: dict[str, int] = {}
        for (family, _), number in self.lines.items():
            most[family] = max(number, most.get(family, 0))
        before, self.deaths = self.deaths, max(most.pop(signs.DUMP, 0), sum(most.values()))
        return self.deaths > before


class LogFile:
    """A log that is read in constant memory, however large it and its lines are."""

    def __init__(self, path: Path, program: str, file: BinaryIO, logs: Logs) -> None:
        self.path, self.program, self.file, self.logs = path, program, file, logs
        self.left = os.fstat(file.fileno()).st_size  # A log may grow faster than it can be read.
        self.number, self.stories = 1, defaultdict[bytes, Story](Story)
        self.head = self.block = self.following = b""
        self.dated, self.searched = times.NEVER, -1  # the last time, and the last line that was looked at

    def read(self) -> Iterator[tuple[int, str]]:
        """Yield how many bytes were read so far, and why no more are, "" if they are."""
        done, self.following = 0, self._more()
        self.head = self.following
        if b"\0" in self.head[:AHEAD]:
            yield 0, "not text"
            return
        self.logs.airflow_3 |= bool(AIRFLOW_3.search(self.head))
        first = times.DATED.search(self.head[:AHEAD])
        self._note(first and times.moment(first))
        while self.following:
            self.block, self.following, self.searched = self.following, self._more(), -1
            for begin in signs.lines(self.block):
                self._line(begin)
            self._note(self._when(self.block.rfind(NEWLINE, 0, -1) + 1))
            self.number += self.block.count(NEWLINE)
            done += len(self.block)
            yield done, ""

    def _more(self) -> bytes:
        more = self.file.read(min(BLOCK, self.left))
        more += self.file.readline(min(LINE, self.left - len(more)))
        self.left -= len(more)
        return more

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
        prefix = PREFIX.match(line) if b"| " in line[:99] else None
        text = line[prefix.end() :] if prefix else line
        if b"\x1b" in text or b"u001b" in text or b"#033" in text:
            text = ANSI.sub(b"", text)
        for told in signs.told(text):
            self._count(told, prefix[1] if prefix else b"", begin)

    def _count(self, told: signs.Told, prefix: bytes, begin: int) -> None:
        """Count a death or a refusal, if it is another one than those that were told of."""
        family, when = told.sentence.family, self._when(begin)
        program = (told.who or prefix).decode() or self.program
        if family == signs.REFUSED:
            key, told = b" ", told._replace(name=b"")
        else:
            key = told.who if family == signs.DOCKER else prefix
        cause = signs.OBJECTIVE_C if family == signs.OBJC else signs.UNKNOWN
        if family == signs.DUMP:
            self.logs.dumps = True
            cause = signs.cause_of_dump(self._frames(begin, prefix))
        if not self.stories[key].is_new(told, when):
            return
        tallies: dict[Any, Tally] = self.logs.refused if family == signs.REFUSED else self.logs.deaths
        tally = tallies.setdefault(program if family == signs.REFUSED else (program, cause), Tally())
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
