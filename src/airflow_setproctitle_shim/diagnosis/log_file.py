"""What a log tells: its deaths and refusals, each counted once, and when they were."""

from __future__ import annotations

import functools
import io
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Optional

from . import signs, times
from .finding import Read

BLOCK, LINE = 2**20, 2**22  # A block is read to the end of its last line, if that is not far.
AHEAD, FRAMES = 2**16, 8  # bytes and frames of a dump that are looked at
BURST = 60.0  # seconds between two lines that do not tell of one death
NAMES = 10_000  # processes and jobs that are remembered at least
NEWLINE = b"\n"
ANSI, PREFIX = re.compile(times.ANSI), re.compile(times.PREFIX)
ESCAPES = b"\x1b", b"u001b", b"#033"
CLOCK = re.compile(rb":\d\d:\d\d")
NEXT_THREAD = b"most recent call first"
DUMP_ENDS = re.compile(rb"Fatal Python error|Extension modules:")
FRAME = re.compile(rb'File \\*"([^"]+?)\\*", line \d+,? in ([^\s"\\]+)')
# Each begins with fixed bytes, which `re` finds much faster than one pattern with alternatives.
AIRFLOW_3 = (
    rb"api-server +\|  dag-processor +\|  airflow\.sdk\.  api_server_command\.py  \[supervisor\]  /execution/"
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

    def note(self, when: times.Moment) -> None:
        """Extend the span of times."""
        if when != times.NEVER:
            written = when.latest - (times.WEST if when.way else 0)
            self.span = min(self.span[0], written), max(self.span[1], written)

    def total(self, side: str) -> int:
        return sum(tally[side] for tally in self.deaths.values())


_Names = dict[bytes, tuple[int, times.Moment]]


class Story:
    """The deaths that a program's lines in one file tell of, each counted once.

    Lines tell of one death if they name the same process or job. Of those that name none, the first of
    one wording and the first of another wording of the same family tell of the first death, and so on; a
    dump, or a report in general words, goes with any family. What is more than a minute later is another
    story (`BURST`). The time of a line before a death says only that it was later: the next line with a time
    tells when, if it tells of it.
    """

    def __init__(self) -> None:
        self.last = times.NEVER
        self.lines = defaultdict[tuple[str, int], int](int)  # by family and wording
        self.families = defaultdict[str, int](int)  # deaths: the most lines of one wording
        self.others = 0  # deaths of families that go with no other
        self.names: _Names = {}  # last wording and time of processes and jobs, and of those before them
        self.before: _Names = {}
        self.guesses: list[Tally] = []  # deaths with the time of a line before them
        self.deaths = 0

    def is_new(self, told: signs.Told) -> bool:
        """Return whether what a line tells is another death than those told of before."""
        wording, family, name, _ = told
        if name:
            known = self.names.get(name) or self.before.get(name)
            self.names[name] = wording, self.last
            # The number of a process can be given again.
            if known and (known[0] != wording or times.apart(self.last, known[1]) <= 2):
                return False
            if len(self.names) > NAMES:
                self.names, self.before = {}, self.names
            wording = -1 if name.isdigit() else -2  # One process, one job: the wording does not matter.
        lines = self.lines[family, wording] = self.lines[family, wording] + 1
        if lines <= self.families[family]:
            return False
        self.families[family] = lines
        if family not in (signs.DUMP, signs.GENERAL):
            self.others = lines = self.others + 1
        if lines <= self.deaths:
            return False
        self.deaths = lines
        return True


def read(path: Path, program: str, logs: Logs) -> int:
    """Add what a log of the program tells to `logs`; return how many bytes were read."""
    with path.open("rb") as file:
        head = file.read(BLOCK)
        file.seek(0)
        if b"\0" in head[:AHEAD]:
            raise ValueError("not text")
        logs.airflow_3 |= any(re.search(sign, head) for sign in AIRFLOW_3.split(b"  "))
        logs.note(times.moment(times.DATED.search(head[:AHEAD])) or times.NEVER)
        stories = defaultdict[bytes, Story](Story)
        zones = functools.cache(lambda: times.zones(head))
        for start, number, when, last, prefix, told in _telling(file, logs):
            family, who, cause = told.family, told.who or prefix, signs.UNKNOWN
            name = who
            if (
                family == signs.REFUSED
            ):  # It may be told by the one who was refused and by the one who did it.
                who, told = b" ", told._replace(name=b"")
            elif family == signs.OBJC:
                cause = signs.OBJECTIVE_C
            elif family == signs.DUMP:
                cause = signs.cause_of_dump(_frames(os.pread(file.fileno(), AHEAD, start), prefix))
                logs.dumps = True
            story = stories[who]
            before = story.last
            guesses = story.guesses if last == before else []
            if not guesses and when != before and times.apart(when, before) > BURST:
                story = stories[who] = Story()
            story.last = when
            side = times.side(when, logs.installed_at, zones)
            if story.is_new(told):
                its = name.decode() or program
                tally = logs.refused[its] if family == signs.REFUSED else logs.deaths[its, cause]
                tally.first = tally.first or f"{path}:{number}"
                tally[side] += 1
                guesses.append(tally)
            elif when is not last:
                for guess in guesses:
                    guess[times.side(before, logs.installed_at, zones)] -= 1
                    guess[side] += 1
            story.guesses = guesses if when is last else []
        return file.tell()


_Line = tuple[int, int, times.Moment, Optional[times.Moment], bytes, signs.Told]


def _telling(file: BinaryIO, logs: Logs) -> Iterator[_Line]:
    """Yield what lines tell: where each begins, its number, its time or else that of the last dated line before
    it (NEVER if there is none), the latter if it or the one told of before has no time, the program that stands
    before it, and what it tells. Note the last time."""
    left = os.fstat(file.fileno()).st_size  # A log may grow faster than it can be read.
    start, number, when, own = 0, 1, times.NEVER, False
    while block := file.read(min(BLOCK, left)):
        block += file.readline(min(LINE, left - len(block)))
        done, coloured = 0, any(escape in block for escape in ESCAPES)
        for begin, end in signs.lines(block):
            its, prefix, all_told = _tells(block[begin:end], coloured)
            if all_told:
                last = _last_time(block, done, begin) or when if not own or not its else None
                when, own = its or last or when, bool(its)
                number += block.count(NEWLINE, done, begin)
                done = end
            for told in all_told:
                yield start + begin, number, when, last, prefix, told
        number += block.count(NEWLINE, done)
        start, left = start + len(block), left - len(block)
        if CLOCK.search(block):
            when = _last_time(block, done, len(block)) or when
    logs.note(when)


def _tells(line: bytes, coloured: bool) -> tuple[times.Moment | None, bytes, list[signs.Told]]:
    """Return a line's own time, the program whose name it begins with, and what it tells."""
    its = PREFIX.match(line)
    text = line[its.end() :] if its else line
    if coloured:
        text = ANSI.sub(b"", text)
    if not (told := signs.told(text)):
        return None, b"", told
    return times.moment(times.DATED.match(line)) or times.own(text), its[1] if its else b"", told


def _last_time(block: bytes, begin: int, end: int) -> times.Moment | None:
    """Return the time of the last dated line that begins from `begin` up to before `end`."""
    while end > begin + 1:  # Where a line ended, another may begin at the next byte.
        end = max(begin, block.rfind(NEWLINE, begin, end - 1) + 1)
        if when := times.moment(times.DATED.match(block, end)):
            return when
    return None


def _frames(text: bytes, prefix: bytes) -> list[str]:
    """Return the innermost frames ("file function") of the dump that the text begins with."""
    frames: list[str] = []
    current, threads = False, 0
    for number, line in enumerate(io.BytesIO(text)):
        its = PREFIX.match(line)
        if (its[1] if its else b"") != prefix or not number:
            continue
        threads += NEXT_THREAD in line
        if b"Current thread 0x" in line:
            current, frames = True, []
        elif DUMP_ENDS.search(line) or current and (frames[FRAMES:] or frames and NEXT_THREAD in line):
            break
        elif frame := FRAME.search(line):
            frames.append(b" ".join(frame.groups()).decode(errors="replace"))
    return frames[:FRAMES] if current or threads < 2 else []  # Which thread died is not told.
