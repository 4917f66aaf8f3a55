"""Goes over an input once, whatever it is, and yields the signs of deaths in it: of crash reports,
of dumps, and of lines that name a death."""

from __future__ import annotations

import datetime
import re
from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from . import crash_reports, dumps, inputs, words
from .advice import DUMP, LINE, REPORT
from .crash_reports import COLOURS, Json, Text
from .dumps import Dump
from .probe import caused

SHOWN = 200  # characters of a line
TIME = re.compile(
    rb"(20\d\d)[-/](\d\d)[-/](\d\d)[T ,]{1,2}(\d\d):(\d\d)(?::(\d\d))?(?:[.,]\d+)?"
    rb"(?: ?(Z\b|UTC|GMT|[+-]\d\d:?\d\d\b))?"
)
# Literals that pieces begin with, and all that are looked for.
BEGIN = frozenset((*crash_reports.JSON_BEGINS, *crash_reports.TEXT_BEGINS, *dumps.BEGINS))
SOUGHT = tuple(dict.fromkeys((*words.SOUGHT, *BEGIN, *crash_reports.TEXT_SOUGHT, *dumps.SOUGHT)))
# The last line of a report in JSON, which may have no end, and what stands behind it: `cat A B`.
FILES_BORDER = re.compile(rb"([\s>|]*\}|.*\}(?=\{\"))(\s*[^\s,\]}].*)", re.DOTALL)
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

    number: int
    begin: int  # where, in its block
    raw: bytes
    literals: list[bytes]  # those of SOUGHT that stand in it


class Reader:
    """Reads one input."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.looked_at = Counter[str]()  # its reports by kind
        self.is_cut_off = False  # one of its reports
        self._block = b""
        self._number = 1  # of the line where the block begins
        self._time = ""  # the last one that was found in the lines above
        self._timed = 0  # Up to there in the block it was looked for.
        self._signs = list[Sign]()
        # By cause: how many lines, the last, where it begins, its number, where in it is the word.
        self._said = dict[str, tuple[int, bytes, int, int, int]]()
        self._piece: Text | Json | Dump | None = None
        self._kept = list[Line]()  # lines of the piece, to be read alone if it is none
        self._last = 0  # number of the piece's last line

    def signs(self) -> Iterator[Sign]:
        """Yield the signs in it. Raises what inputs.blocks() raises, after the signs before."""
        for self._block in inputs.blocks(self.path):  # noqa: B020
            self._timed = 0
            self._read_block()
            self._end_block()
            yield from self._signs
            self._signs.clear()
        self._close()
        self._end_block()
        yield from self._signs
        self.looked_at = self.looked_at or Counter({"log": 1})

    def _read_block(self) -> None:
        """Read the lines in which something is sought, and all lines of a report in JSON."""
        block, hits = self._block, _hits(self._block)
        at = counted = hit = 0
        number = self._number
        while at < len(block):
            if self._piece is None or self._piece.is_patient:
                if hit == len(hits):
                    return
                at = block.rfind(b"\n", at, hits[hit][0]) + 1 or at
            end = block.find(b"\n", at) + 1 or len(block)
            literals = list[bytes]()
            while hit < len(hits) and hits[hit][0] < end:
                literals.append(hits[hit][1])
                hit += 1
            if self._piece is None and BEGIN.isdisjoint(literals):
                self._say(block[at:end], literals, at)
            else:
                number += block.count(b"\n", counted, at)
                counted = at
                self._read(Line(number, at, block[at:end], literals))
            at = end

    def _read(self, line: Line) -> None:
        """Read a line, or the lines that it holds with their ends escaped."""
        if b"\\n" in line.raw and not WITH_ESCAPES.isdisjoint(line.literals):
            parts = line.raw.split(b"\\n")
        elif isinstance(self._piece, Json) and (border := FILES_BORDER.match(line.raw)):
            parts = list(border.groups())
        else:
            self._take(line)
            return
        for raw in parts:
            self._take(line._replace(raw=raw, literals=_sought_in(raw)))

    def _take(self, line: Line, is_again: bool = False) -> None:
        """Give a line to the open piece, or else read it alone. `is_again`: it was part of what
        looked like a report and is none."""
        if words.OWN.match(line.raw):
            return
        if self._piece and line.number > self._last + self._piece.patience:
            self._close()
        if self._piece and self._piece.take(line.raw):
            self._last = line.number
            self._kept += [line] * bool(line.literals)
        else:
            if self._piece and not self._piece.is_patient:
                self._close()
            piece = _begun(line, is_again)
            if not piece:
                self._say(line.raw, line.literals, line.begin, line.number)
                return
            while self._piece:
                self._close()
            self._piece, self._kept, self._last = piece, [line], line.number
            self._find_time(line.begin)
        if self._piece.is_over:
            self._close()

    def _close(self) -> None:
        """End the open piece, and keep its sign. If it is none, read its lines alone."""
        piece, kept = self._piece, self._kept
        self._piece, self._kept = None, []
        if isinstance(piece, Dump):
            self._end_dump(piece, kept)
        elif piece and (report := piece.report()):
            self._end_report(report)
            if isinstance(piece, Json) and piece.tail:
                self._say(piece.tail, _sought_in(piece.tail), kept[-1].begin, kept[-1].number)
        else:
            for line in kept:
                self._take(line, is_again=True)

    def _end_dump(self, dump: Dump, kept: list[Line]) -> None:
        if judged := dump.judge():
            cause, frame = judged
            first = kept[0]
            self._signs.append(
                Sign(
                    cause=cause.name,
                    read=DUMP,
                    place=f"{self.path}:{first.number}",
                    time=self._time,
                    quote=_text(first.raw),
                    frame=_text(frame),
                    is_of_linux=dump.is_of_linux,
                )
            )
        elif not dump.is_harmless:
            for line in kept:
                self._say(line.raw, line.literals, line.begin, line.number)

    def _end_report(self, report: crash_reports.Report) -> None:
        kind = "crash report" if report.is_python else "non-Python report"
        if caused(report.thread):
            kind = "report of `probe`"
        self.looked_at[kind] += 1
        if kind == "crash report":
            cause, quote = report.judge()
            self.is_cut_off |= report.is_cut_off
            self._signs.append(
                Sign(cause.name, REPORT, self.path, report.time or self._time, quote)
            )

    def _say(self, raw: bytes, literals: list[bytes], begin: int, number: int = 0) -> None:
        """Keep the sign that a line is, if it is one. `number`: 0 if it was not counted."""
        if b"\x1b[" in raw:
            raw = COLOURS.sub(b"", raw)
        if not (told := words.read(raw, literals)):
            return
        word, start = told
        if word.above:
            above = self._block[max(0, begin - 1000) : begin] + raw
            if not re.search(word.above.encode(), above):
                return
        before = self._said.get(word.cause)
        self._said[word.cause] = (before[0] + 1 if before else 1), raw, begin, number, start

    def _end_block(self) -> None:
        """Keep the last sign of each cause that lines of this block name."""
        for cause, (count, raw, begin, number, start) in self._said.items():
            its = TIME.search(raw)
            if not its:
                self._find_time(begin)
            time = its[0].decode() if its else self._time
            number = number or self._number + self._block.count(b"\n", 0, begin)
            place, quote = f"{self.path}:{number}", _around(raw, start)
            self._signs.append(Sign(cause, LINE, place, time, quote, number=count))
        self._said.clear()
        self._find_time(len(self._block))
        self._number += self._block.count(b"\n")
        self._kept = [line._replace(begin=0) for line in self._kept]
        self._block = b""

    def _find_time(self, end: int) -> None:
        """Find the last time that stands above a place in the block."""
        begin, size = end, 1000
        while begin > self._timed:
            begin = max(self._timed, end - size)
            if times := deque(TIME.finditer(self._block, begin, end), maxlen=1):
                self._time = times[0][0].decode()
                break
            size *= 8
        self._timed = max(self._timed, end)


def _hits(block: bytes) -> list[tuple[int, bytes]]:
    """Return where something stands that is sought, in its order."""
    hits = list[tuple[int, bytes]]()
    for literal in SOUGHT:
        at = block.find(literal)
        while at >= 0:
            hits.append((at, literal))
            at = block.find(literal, at + 1)
    hits.sort()
    return hits


def _sought_in(raw: bytes) -> list[bytes]:
    return [literal for literal in SOUGHT if literal in raw]


def _begun(line: Line, is_again: bool) -> Text | Json | Dump | None:
    """Return the piece that begins with a line."""
    kinds: tuple[tuple[frozenset[bytes], type[Text | Json | Dump]], ...] = (
        (dumps.BEGINS, Dump),
        (crash_reports.JSON_BEGINS, Json),
        (crash_reports.TEXT_BEGINS, Text),
    )
    for begins, kind in kinds[: 1 if is_again else None]:
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
