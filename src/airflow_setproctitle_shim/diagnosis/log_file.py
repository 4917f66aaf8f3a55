"""What a log tells: its deaths and refusals, each counted once, and when they were."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from . import signs
from .finding import Read
from .story import Story

BLOCK, LINE = 2**20, 2**16  # A block is read to the end of its last line, if that is not far.
OVERLAP = 2**10  # of a longer line's parts, longer than any sentence
CHUNK = 2**16  # read at a time when a time is looked for in what was read before
SAMPLE = 2**22  # bytes of a file that may show its zone
AHEAD, FRAMES = 2**16, 8  # bytes and frames of a dump that are looked at
NEWLINE = b"\n"
ANSI, PREFIX = re.compile(signs.ANSI), re.compile(signs.PREFIX)
SEARCHES = [(number, its.words, its.pattern.search) for number, its in enumerate(signs.SENTENCES)]
NUMBER, ALONE = b"139", re.compile(rb"(?<![\w.-])139(?!\w)")  # hardly any line has it alone
FRAME = re.compile(rb'File \\*"([^"]+?)\\*", line \d+,? in ([^\s"\\]+)')
DUMP_ENDS = re.compile(rb"Extension modules:|Fatal Python error:|most recent call first")
AIRFLOW_3 = re.compile(
    rb"api-server +\||dag-processor +\||\bairflow\.sdk\.|\bapi_server_command\.py|\[supervisor\]|/execution/"
)


class Tally(Counter[str]):
    """How many by signs.SIDES, and where the first stands: path:line."""

    first = ""


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
        return sum(tally[side] for tally in self.deaths.values())


class LogFile:
    """A log that is read in constant memory, however large it and its lines are."""

    def __init__(self, path: Path, program: str, file: BinaryIO, logs: Logs) -> None:
        self.path, self.program, self.file, self.logs = path, program, file, logs
        self.left = os.fstat(file.fileno()).st_size  # A log may grow faster than it can be read.
        self.start, self.number, self.block = 0, 1, b""  # where the block begins, its first line, its bytes
        self.stories: dict[bytes, Story] = {}
        self.zones: dict[bytes, float] | None = None  # not looked for yet
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
            written = span[1] - (0 if span[0] == span[1] else signs.WEST)
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
        prefix = None if continued or b"| " not in line[:99] else PREFIX.match(line)
        text = line[prefix.end() :] if prefix else line
        if b"\x1b" in text or b"u001b" in text or b"#033" in text:
            text = ANSI.sub(b"", text)
        for number, words, search in SEARCHES:
            if words in text and (found := search(text)):
                when = self._when(begin, text, continued)
                while found and found.start() < len(text) - max(0, stop - end):
                    if not continued or found.start():
                        self._tell(number, found, prefix[1] if prefix else b"", when, begin, stop)
                    found = search(text, found.end())
                return

    def _tell(
        self, number: int, found: re.Match[bytes], prefix: bytes, when: signs.Span, begin: int, stop: int
    ) -> None:
        """Count a death or a refusal, if it is another one than those that were told of."""
        sentence, groups, text = signs.SENTENCES[number], found.re.groupindex, found.string
        if sentence.family == signs.GENERAL and (
            signs.NO_NEWS.search(text, max(0, found.start() - 150), found.start())
            or signs.EXPLAINED.match(text, found.end())
        ):
            return
        pid = found if "pid" in groups and found["pid"] else signs.PID.search(text)
        name = b"job " + found["job"] if "job" in groups else pid["pid"] if pid else b""
        who = found["who"] or prefix if "who" in groups else prefix
        program, side = who.decode() or self.program, signs.side(when, self.logs.installed_at)
        refused = sentence.family == signs.REFUSED
        key = b" " if refused else who if sentence.family == signs.DOCKER else prefix
        story = self.stories.get(key) or self.stories.setdefault(key, Story())
        new = story.is_new(number, b"" if refused else name, when)
        if refused:
            if new:
                self._count(self.logs.refused, program, side, begin)
            return
        cause = signs.OBJECTIVE_C if sentence.family == signs.OBJC else signs.UNKNOWN
        if sentence.family == signs.DUMP:
            self.logs.dumps = True
            cause = signs.cause_of_dump(self._frames(stop, prefix))
            if not new and story.unexplained:  # What was told of before is explained now.
                program, side = story.unexplained.popleft()
                self.logs.deaths[program, signs.UNKNOWN].subtract([side])
                new = True
        elif new and cause == signs.UNKNOWN:
            story.unexplained.append((program, side))
        if new:
            self._count(self.logs.deaths, (program, cause), side, begin)

    def _count(self, tallies: dict[Any, Tally], key: object, side: str, begin: int) -> None:
        tally = tallies.get(key) or tallies.setdefault(key, Tally())
        tally.first = tally.first or f"{self.path}:{self.number + self.block.count(NEWLINE, 0, begin)}"
        tally[side] += 1

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

    def _moment(self, found: re.Match[bytes]) -> signs.Span | None:
        """Return what a time can mean in this file, which may show the zone of those that have none."""
        span = signs.moment(found)
        if span is None or not found["iso"] or signs.side(span, self.logs.installed_at) != "undated":
            return span
        if self.zones is None:
            self.zones = signs.zones(self._at(0, SAMPLE))
        offset = self.zones.get(signs.shape(found))
        return span if offset is None else (span[0] + signs.EAST - offset,) * 2

    def _when(self, begin: int, text: bytes, continued: bool) -> signs.Span:
        """Return the line's time, else that of the last dated line before it, else signs.NEVER."""
        here = self.start + begin
        own = None if continued else signs.DATED.match(text)
        when = self._moment(own) if own else None
        known, last = self.dated
        stop = here
        while when is None and stop > known:
            start = max(known, stop - CHUNK)
            chunk = self._at(start, stop - start)
            # The first line is cut, unless it stands where a search ended before.
            cut = 0 if start == known else chunk.find(NEWLINE, 0, -1) + 1
            for found in signs.DATED.finditer(chunk, cut) if cut or start == known else ():
                when = self._moment(found) or when
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
            stop = stop if stop >= 0 else len(block)
            if needle != NUMBER or ALONE.search(block, begin, stop):
                lines[begin] = stop
            place = block.find(needle, stop)
    return sorted(lines.items())
