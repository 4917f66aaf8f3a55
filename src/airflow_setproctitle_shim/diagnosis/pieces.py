"""Goes over an input once, whatever it is, and yields the signs of deaths in it: of crash reports,
of dumps, and of lines that name a death."""

from __future__ import annotations

import datetime
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import crash_reports, dumps, inputs, words
from .advice import DUMP, LINE, REPORT
from .crash_reports import COLOURS, Json, Text, unmarked
from .dumps import Dump
from .probe import caused

SHOWN = 200  # characters of a line
NEAR = 2**12  # bytes between a report's brace and its keys, at most
TIME = re.compile(
    rb"(20\d\d)[-/](\d\d)[-/](\d\d)[T ,]{1,2}(\d\d):(\d\d)(?::(\d\d))?(?:[.,]\d+)?"
    rb"(?: ?(Z\b|UTC|GMT|[+-]\d\d:?\d\d\b))?"
)
# The kinds of pieces, and the literals in their first lines.
KINDS: tuple[tuple[type[Text | Json | Dump], frozenset[bytes]], ...] = (
    (Dump, frozenset(dumps.BEGINS)),
    (Json, frozenset(crash_reports.JSON_BEGINS)),
    (Text, frozenset(crash_reports.TEXT_BEGINS)),
)
BEGIN = frozenset((*dumps.BEGINS, *crash_reports.JSON_BEGINS, *crash_reports.TEXT_BEGINS))
# What is looked for, and what else is where a piece begins.
FIRST = tuple(dict.fromkeys((*words.SOUGHT, *sorted(BEGIN))))
LATER = (*dumps.LATER, *crash_reports.LATER)
SOUGHT = (*FIRST, *LATER)
# What may stand in one line, with its line ends escaped.
WITH_ESCAPES = frozenset((b"Python error: ", b"most recent call first", b" Crashed"))


class Sign(NamedTuple):
    """What tells that processes died; `number` of one cause in one block, and the last of them."""

    cause: str
    read: str  # REPORT, DUMP or LINE
    place: str  # path:line, or a crash report's path
    time: str  # as it is written; "" if there is none
    quote: str
    frame: str = ""  # that tells the cause
    is_of_linux: bool = False
    number: int = 1


class Line(NamedTuple):
    """A line, or the part of one between two escaped line ends."""

    begin: int  # where, in its block
    number: int
    raw: bytes
    literals: Sequence[bytes]  # those of SOUGHT that stand in it


class Kept:
    """The signs of one kind in a block: how many, and the last one."""

    __slots__ = ("begin", "count", "frame", "number", "raw", "start", "time")

    def __init__(self) -> None:
        self.count = 0
        self.begin = 0  # of its line in the block
        self.number = 0  # of its line; 0 if that was not counted
        self.raw = b""  # its line
        self.start = 0  # of the words in it that tell
        self.frame = b""  # the line of a dump that tells
        self.time = ""  # that a report has


class Reader:
    """Reads one input."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.looked_at: Counter[str] = Counter()  # its reports by kind
        self.is_cut_off = False  # one of its reports
        self._block = b""
        self._number = 1  # of the line where the block begins
        self._time = ""  # the last one that stands above the block
        self._kept: dict[tuple[str, str, bool], Kept] = {}  # by cause, kind, and whether of Linux
        self._piece: Text | Json | Dump | None = None
        self._lines: list[Line] = []  # of the piece, to be read alone if it is none
        self._last = 0  # number of the piece's last line

    def signs(self) -> Iterator[Sign]:
        """Yield the signs in it. Raises what inputs.blocks() raises, after the signs before."""
        for self._block in inputs.blocks(self.path):  # noqa: B020
            self._read_block()
            yield from self._end_block()
        self._close()
        yield from self._end_block()
        self.looked_at = self.looked_at or Counter({"log": 1})

    def _read_block(self) -> None:
        """Read the lines in which something is sought, and all lines of a report in JSON."""
        block, hits = self._block, _hits(self._block, FIRST)
        if self._piece or not BEGIN.isdisjoint(literal for _, literal in hits):
            hits = sorted(hits + _hits(block, LATER))
        at = counted = hit = 0
        number = self._number
        while at < len(block):
            if self._piece is None or self._piece.is_patient:
                if hit == len(hits):
                    return
                at = block.rfind(b"\n", at, hits[hit][0]) + 1 or at
            end = block.find(b"\n", at) + 1 or len(block)
            literals = []
            while hit < len(hits) and hits[hit][0] < end:
                if hits[hit][1] not in literals:
                    literals.append(hits[hit][1])
                hit += 1
            if self._piece is None and BEGIN.isdisjoint(literals):
                self._say(block[at:end], literals, at)
            else:
                number += block.count(b"\n", counted, at)
                counted = at
                self._read(Line(at, number, block[at:end], literals))
            at = end

    def _read(self, line: Line) -> None:
        """Read a line, or the parts of one that hold lines of their own."""
        raw = line.raw
        if b"\\n" in raw and not WITH_ESCAPES.isdisjoint(line.literals):
            parts = raw.split(b"\\n")
        elif crash_reports.KEYS[0] in line.literals:
            # Behind another file, without a last line end, there may be a head.
            before, head, behind = raw.partition(crash_reports.HEAD)
            parts = [before, head + behind] if head and unmarked(before).strip() else [raw]
        else:
            parts = [raw]
        if len(parts) == 1:
            self._take(line)
        else:
            for part in parts:
                self._take(line._replace(raw=part, literals=_sought_in(part)))

    def _take(self, line: Line, is_again: bool = False) -> None:
        """Give a line to the open piece, or else read it alone. `is_again`: it was part of what
        looked like a report and is none."""
        if words.is_own(line.raw):
            return
        if self._piece and line.number > self._last + self._piece.patience:
            self._close()
        if self._piece and self._piece.take(line.raw):
            self._last = line.number
            if line.literals and not self._piece.is_sure:
                self._lines.append(line)
        else:
            if self._piece and not self._piece.is_patient:
                self._close()
            piece = _begun(line, is_again)
            if not piece:
                self._say(line.raw, line.literals, line.begin, line.number)
                return
            while self._piece:
                self._close()
            self._piece, self._lines, self._last = piece, [line], line.number
        if self._piece.is_over:
            tail = self._piece.tail
            self._close()
            if tail:
                self._take(line._replace(raw=tail, literals=_sought_in(tail)))

    def _close(self) -> None:
        """End the open piece, and keep its sign. If it is none, read its lines alone."""
        piece, lines = self._piece, self._lines
        self._piece, self._lines = None, []
        if isinstance(piece, Dump):
            if judged := piece.judge():
                cause, frame = judged
                kept = self._keep(cause.name, DUMP, piece.is_of_linux)
                kept.begin, kept.number, kept.raw, _ = lines[0]
                kept.frame = frame
            elif not piece.is_harmless:
                for line in lines:
                    self._say(line.raw, line.literals, line.begin, line.number)
        elif piece and (report := piece.report()):
            self._keep_report(report, lines[0])
        else:
            for line in lines:
                self._take(line, is_again=True)

    def _say(self, raw: bytes, literals: Sequence[bytes], begin: int, number: int = 0) -> None:
        """Keep the sign that a line is, if it is one. `number`: 0 if it was not counted."""
        if b"\x1b[" in raw:
            raw = COLOURS.sub(b"", raw)
        if not (told := words.read(raw, literals)):
            return
        cause, start, word = told
        if word.above:
            above = self._block[max(0, begin - 1000) : begin] + raw
            if not re.search(word.above.encode(), above):
                return
        kept = self._keep(cause, LINE)
        kept.begin, kept.number, kept.raw, kept.start = begin, number, raw, start

    def _keep(self, cause: str, read: str, is_of_linux: bool = False) -> Kept:
        """Count a sign, and return what is kept of the last one."""
        kind = cause, read, is_of_linux
        kept = self._kept.get(kind)
        if kept is None:
            kept = self._kept[kind] = Kept()
        kept.count += 1
        return kept

    def _keep_report(self, report: crash_reports.Report, line: Line) -> None:
        kind = "crash report" if report.is_python else "non-Python report"
        if caused(report.thread):
            kind = "report of `probe`"
        self.looked_at[kind] += 1
        if kind == "crash report":
            cause, quote = report.judge()
            self.is_cut_off |= report.is_cut_off
            kept = self._keep(cause.name, REPORT)
            kept.begin, kept.raw, kept.time = line.begin, quote.encode(), report.time

    def _end_block(self) -> Iterator[Sign]:
        """Yield the signs of this block, the last of each kind."""
        for (cause, read, is_of_linux), kept in self._kept.items():
            its = TIME.search(kept.raw)
            time = its[0].decode() if its else kept.time or self._time_above(kept.begin)
            number = kept.number or self._number + self._block.count(b"\n", 0, kept.begin)
            yield Sign(
                cause=cause,
                read=read,
                place=self.path if read == REPORT else f"{self.path}:{number}",
                time=time,
                quote=_around(kept.raw, kept.start),
                frame=_text(kept.frame),
                is_of_linux=is_of_linux,
                number=kept.count,
            )
        self._kept.clear()
        self._time = self._time_above(len(self._block))
        self._number += self._block.count(b"\n")
        self._lines = [line._replace(begin=0) for line in self._lines]
        self._block = b""

    def _time_above(self, begin: int) -> str:
        """Return the last time that stands above a place in the block."""
        end, size = begin, 1000
        while begin > 0:
            begin = max(0, end - size)
            if times := deque(TIME.finditer(self._block, begin, end), maxlen=1):
                return times[0][0].decode()
            size *= 8
        return self._time


def _hits(block: bytes, literals: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Return where literals stand, in their order."""
    hits = []
    for literal in literals:
        at = block.find(literal)
        while at >= 0:
            hits.append((at, literal))
            at = block.find(literal, at + 1)
    hits.sort()
    return _near_keys(hits, len(block)) if crash_reports.BRACE in literals else hits


def _near_keys(hits: list[tuple[int, bytes]], end: int) -> list[tuple[int, bytes]]:
    """Return hits without the braces that no key of a crash report follows soon: other JSON's."""
    kept, key = [], end  # What stands behind the block is not known.
    for at, literal in reversed(hits):
        if literal in crash_reports.KEYS:
            key = at
        if literal is not crash_reports.BRACE or key - at < NEAR:
            kept.append((at, literal))
    return kept[::-1]


def _sought_in(raw: bytes) -> list[bytes]:
    return [literal for literal in SOUGHT if literal in raw]


def _begun(line: Line, is_again: bool) -> Text | Json | Dump | None:
    """Return the piece that begins with a line."""
    for kind, begins in KINDS[: 1 if is_again else None]:
        if not begins.isdisjoint(line.literals):
            piece = kind()
            if piece.take(line.raw):
                return piece
    return None


def _text(line: bytes) -> str:
    """Return the beginning of a line as text."""
    return COLOURS.sub(b"", line[: 4 * SHOWN]).decode(errors="replace").strip()[:SHOWN]


def _around(line: bytes, start: int) -> str:
    """Return a line, or as much of a long one as shows what begins at `start`."""
    before = line[max(0, start - 4 * SHOWN) : start].decode(errors="replace")
    if len(before) > SHOWN // 2 and len(line) > SHOWN:
        return f"... {before[-SHOWN // 2 :]}{_text(line[start:])[: SHOWN // 2]}"
    return _text(line)


def earliest(time: str) -> float:
    """Return the earliest moment that a written time can mean, in seconds since the epoch; 0 if
    it is none."""
    try:
        *numbers, zone = TIME.match(time.encode()).groups(b"0")  # type: ignore[union-attr]
        moment = datetime.datetime(*map(int, numbers), tzinfo=datetime.timezone.utc)  # type: ignore[arg-type,misc]
        at = moment.timestamp()
    except (AttributeError, ValueError):
        return 0
    if zone[:1] in (b"+", b"-"):
        return at - int(zone[:1] + b"1") * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return at - 14 * 3600 if zone == b"0" else at  # No zone is farther east.
