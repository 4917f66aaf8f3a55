"""What a log tells: its deaths and refusals, each counted once, and when they were."""

from __future__ import annotations

import io
import math
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
NEXT_THREAD = b"most recent call first"
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
    # By program and cause; and by program: 401 or 403 of the execution API.
    deaths: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    refused: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    span: tuple[float, float] = (math.inf, -math.inf)  # the first and the last time, as written
    airflow_3: bool = False  # some of it was written by Airflow 3
    dumps: bool = False  # faulthandler was on in some program

    def note(self, when: times.Moment | None) -> None:
        """Extend the span of times."""
        if when and when != times.NEVER:
            written = when.latest - (times.WEST if when.way else 0)
            self.span = min(self.span[0], written), max(self.span[1], written)

    def total(self, side: str) -> int:
        return sum(tally[side] for tally in self.deaths.values())


class Story:
    """The deaths that a program's lines in one file tell of, each counted once.

    Lines tell of one death if they name the same process or job. Of those that name none, the first of
    one wording and the first of another wording of the same family tell of the first death, and so on;
    a dump goes with any family. What is more than a minute later is another story (`BURST`).
    """

    def __init__(self) -> None:
        self.last = times.NEVER
        self.lines = defaultdict[tuple[str, int], int](int)  # by family and wording
        self.families = defaultdict[str, int](int)  # deaths: the most lines of one wording
        self.names = OrderedDict[bytes, tuple[int, times.Moment]]()  # last wording and time

    def is_new(self, told: signs.Told, when: times.Moment) -> bool:
        """Return whether what a line tells is another death than those told of before."""
        if when is not self.last and when is not times.NEVER and when != self.last:
            if times.apart(when, self.last) > BURST:
                for known in (self.lines, self.families, self.names):
                    known.clear()
            self.last = when
        wording = told.sentence
        if told.name:
            before, then = self.names.get(told.name, (-1, when))
            self.names[told.name] = wording, self.last
            # The number of a process can be given again.
            if before >= 0 and (before != wording or times.apart(self.last, then) <= 2):
                return False
            if len(self.names) > NAMES:
                self.names.popitem(last=False)
            wording = -1 if told.name.isdigit() else -2  # One process, one job: the wording does not matter.
        self.lines[told.family, wording] += 1
        if self.lines[told.family, wording] <= self.families[told.family]:
            return False
        self.families[told.family] += 1
        dumps = self.families[signs.DUMP]
        others = sum(self.families.values()) - dumps
        return dumps > others if told.family == signs.DUMP else others > dumps


def read(path: Path, program: str, logs: Logs) -> tuple[int, str]:
    """Add what a log of the program tells to `logs`; return how many bytes were read, or why it was not."""
    with path.open("rb") as file:
        head = file.read(BLOCK)
        file.seek(0)
        if b"\0" in head[:AHEAD]:
            return 0, "not text"
        logs.airflow_3 |= bool(AIRFLOW_3.search(head))
        first = times.DATED.search(head[:AHEAD])
        logs.note(first and times.moment(first))
        stories, when = defaultdict[bytes, Story](Story), times.NEVER
        for start, number, line, when in _lines(file):
            found = PREFIX.match(line) if b"| " in line[:99] else None
            prefix = found[1] if found else b""
            line = line[found.end() :] if found else line
            if b"\x1b" in line or b"u001b" in line or b"#033" in line:
                line = ANSI.sub(b"", line)
            # Long lines would fill the cache.
            for told in signs.told(line) if len(line) < 1000 else signs.told.__wrapped__(line):
                who, cause = told.who or prefix, signs.UNKNOWN
                tallies: dict[Any, Tally] = logs.deaths
                if told.family == signs.REFUSED:
                    who, told, tallies = b" ", told._replace(name=b""), logs.refused
                elif told.family == signs.OBJC:
                    cause = signs.OBJECTIVE_C
                elif told.family == signs.DUMP:
                    logs.dumps, cause = True, signs.cause_of_dump(_frames(file, start, prefix))
                if stories[who].is_new(told, when):
                    name = (told.who or prefix).decode() or program
                    tally = tallies[name if tallies is logs.refused else (name, cause)]
                    tally.first = tally.first or f"{path}:{number}"
                    tally[times.side(when, logs.installed_at, head)] += 1
        logs.note(when)
        return file.tell(), ""


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes, times.Moment]]:
    """Yield the lines that may tell of a death: where each begins, its number, its text, and its time, else that
    of the last dated line before it, else NEVER."""
    left = os.fstat(file.fileno()).st_size  # A log may grow faster than it can be read.
    start, number, when, written = 0, 1, times.NEVER, b""
    while block := file.read(min(BLOCK, left)):
        block += file.readline(min(LINE, left - len(block)))
        done, counted = -1, 0
        for begin in signs.lines(block):
            at = begin
            while at > done:
                found = times.DATED.match(block, at)
                if found and found[0] == written:  # Many lines of one second are read much faster so.
                    break
                if its := found and times.moment(found):
                    when, written = its, found[0]
                    break
                at = block.rfind(NEWLINE, 0, at - 1) + 1 if at else -1
            number += block.count(NEWLINE, counted, begin)
            done = counted = begin
            stop = block.find(NEWLINE, begin)
            yield start + begin, number, block[begin : stop if stop >= 0 else None], when
        number += block.count(NEWLINE, counted)
        start, left = start + len(block), left - len(block)


def _frames(file: BinaryIO, start: int, prefix: bytes) -> list[str]:
    """Return the innermost frames ("file function") of the dump that begins there."""
    here = file.tell()
    file.seek(start)
    lines = io.BytesIO(file.read(AHEAD))
    file.seek(here)
    frames: list[str] = []
    current = False
    for number, line in enumerate(lines):
        its = PREFIX.match(line)
        if (its[1] if its else b"") != prefix or not number:
            continue
        if b"Current thread 0x" in line:
            current, frames = True, []
        elif DUMP_ENDS.search(line) or current and (frames[FRAMES:] or frames and NEXT_THREAD in line):
            break
        elif frame := FRAME.search(line):
            frames.append(b" ".join(frame.groups()).decode(errors="replace"))
    return frames[:FRAMES]
