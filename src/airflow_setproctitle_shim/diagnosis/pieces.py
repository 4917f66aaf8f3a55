"""Goes over an input once, whatever it is, and yields the signs of deaths in it: of crash reports,
of dumps, and of lines that name a death."""

from __future__ import annotations

import datetime
import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import crash_reports, dumps, inputs, words
from .advice import DUMP, LINE, REPORT
from .crash_reports import COLOURS, Json, Text, unmarked
from .dumps import LONGEST_KEPT, Dump
from .probe import caused

SHOWN = 200  # characters of a line
NEAR = 100  # lines between a report's brace and its keys, at most
ABOVE = 10  # lines in which a wording's `above` is looked for
TIME = re.compile(
    rb"(20\d\d)[-/](\d\d)[-/](\d\d)[T ,]{1,2}(\d\d):(\d\d)(?::(\d\d))?(?:[.,]\d+)?"
    rb"(?: ?(Z\b|UTC|GMT|[+-]\d\d:?\d\d\b))?"
)
# The kinds of pieces, and the literals in their first lines. None of the literals has a digit.
KINDS: tuple[tuple[type[Text | Json | Dump], frozenset[bytes]], ...] = (
    (Dump, frozenset(dumps.BEGINS)),
    (Json, frozenset((*crash_reports.KEYS, crash_reports.BRACE))),
    (Text, frozenset(crash_reports.TEXT_BEGINS)),
)
LITERALS = tuple(
    dict.fromkeys(
        (
            *words.SOUGHT,
            *dumps.BEGINS,
            *dumps.LATER,
            *crash_reports.KEYS,
            *crash_reports.TEXT_BEGINS,
            *crash_reports.LATER,
        )
    )
)
KEYS = frozenset(crash_reports.KEYS)
# What may stand in one line, with its line ends escaped.
WITH_ESCAPES = frozenset((b"Python error: ", b"most recent call first", b" Crashed"))
WITH_PARTS = WITH_ESCAPES | KEYS
MOST_KEPT = 1000  # lines of a block; those of a log with more are different each time
DIGITS = b"0123456789"
ZEROES = bytes.maketrans(DIGITS, b"0" * len(DIGITS))
# A time, or a number that is no signal's and no status: it does not matter to any wording.
LONG_NUMBER = re.compile(rb"\d\d(?:\d\d+|:\d\d:\d\d(?:[.,]\d+)?)")
# A UUID from its first hyphen on: that is found fast. Eight letters stand before it.
ID = re.compile(rb"-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


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


class Look(NamedTuple):
    """What can be seen in a line at a glance, by the literals that stand in it."""

    literals: tuple[bytes, ...]  # of LITERALS
    kinds: tuple[type[Text | Json | Dump], ...]  # of pieces that may begin with it
    may_have_parts: bool  # It may hold lines of its own.
    may_have_words: bool  # It may name a death.
    depends_on_numbers: bool  # Whether it does.


class Line(NamedTuple):
    """A line, or the part of one between two escaped line ends."""

    number: int
    raw: bytes
    look: Look


NOTHING = Look((), (), may_have_parts=False, may_have_words=False, depends_on_numbers=False)


class Kept:
    """The signs of one kind in a block: how many, and the last one."""

    __slots__ = ("count", "frame", "number", "raw", "time")

    def __init__(self) -> None:
        self.count = 0
        self.number = 0  # of its line
        self.raw = b""  # its line
        self.frame = b""  # the line of a dump that tells
        self.time = ""  # that a report has


class Reader:
    """Reads one input."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.looked_at: Counter[str] = Counter()  # its reports by kind
        self.is_cut_off = False  # one of its reports
        self._block: list[bytes] = []  # its lines, without their ends
        self._has_times = self._has_ids = False  # the block
        self._number = 1  # of the line where the block begins
        self._time = ""  # the last one that stands above the block
        self._kept: dict[tuple[str, str, bool], Kept] = {}  # by cause, kind, and whether of Linux
        self._told: dict[bytes, words.Told | None] = {}  # by line of the block
        self._piece: Text | Json | Dump | None = None
        self._lines: list[Line] = []  # of the piece, to be read alone if it is none
        self._last = 0  # number of the piece's last line

    def signs(self) -> Iterator[Sign]:
        """Yield the signs in it. Raises what inputs.blocks() raises, after the signs before."""
        for block in inputs.blocks(self.path):
            self._block = block.split(b"\n")
            self._has_times, self._has_ids = bool(TIME.search(block)), bool(ID.search(block))
            self._read_block(_without_ids(block).translate(None, DIGITS).split(b"\n"))
            yield from self._end_block()
        self._close()
        yield from self._end_block()
        self.looked_at = self.looked_at or Counter({"log": 1})

    def _read_block(self, bare: list[bytes]) -> None:
        """Read the lines in which something is sought, and all lines of a report in JSON. `bare`:
        the lines without ids and digits, as logs repeat lines with others."""
        looks = _looks(dict(zip(bare, self._block)))
        with_key = {key for key, look in looks.items() if not KEYS.isdisjoint(look.literals)}
        for index, key in enumerate(bare):
            look = looks.get(key, NOTHING)
            if look is NOTHING and (self._piece is None or self._piece.is_patient):
                continue
            # What stands behind the block is not known.
            if Json in look.kinds and index + NEAR < len(bare):
                near = bare[index : index + NEAR] if with_key else []
                if with_key.isdisjoint(near):
                    look = look._replace(kinds=())  # other JSON
            if self._piece is None and not look.kinds:
                self._say(self._number + index, self._block[index], look)
                continue
            end = b"\n" if index + 1 < len(bare) else b""
            line = Line(self._number + index, self._block[index] + end, look)
            parts = _parts(line.raw, look.literals) if look.may_have_parts else []
            if len(parts) > 1:
                self._take_parts(line.number, parts)
            else:
                self._take(line)

    def _take_parts(self, number: int, parts: list[bytes]) -> None:
        """Read the lines that a line holds."""
        bare = [part.translate(None, DIGITS) for part in parts]
        looks = _looks(dict(zip(bare, parts)))
        for key, part in zip(bare, parts):
            self._take(Line(number, part, looks.get(key, NOTHING)))

    def _take(self, line: Line, is_again: bool = False) -> None:
        """Give a line to the open piece, or else read it alone. `is_again`: it was part of what
        looked like a report and is none."""
        if self._piece and line.number > self._last + self._piece.patience:
            self._close()
        if self._piece and self._piece.take(line.raw):
            self._last = line.number
            if line.look.literals and not self._piece.is_sure:
                self._lines.append(line)
        else:
            if self._piece and not self._piece.is_patient:
                self._close()
            piece = _begun(line, is_again)
            if not piece:
                self._say(*line)
                return
            while self._piece:
                self._close()
            self._piece, self._lines, self._last = piece, [line], line.number
        if self._piece.is_over:
            tail = self._piece.tail
            self._close()
            if tail:
                self._take(Line(line.number, tail, _look_at(tail)))

    def _close(self) -> None:
        """End the open piece, and keep its sign. If it is none, read its lines alone."""
        piece, lines = self._piece, self._lines
        self._piece, self._lines = None, []
        if isinstance(piece, Dump):
            if judged := piece.judge():
                cause, frame = judged
                kept = self._keep(cause.name, DUMP, piece.is_of_linux)
                kept.number, kept.raw, _ = lines[0]
                kept.frame = frame
            elif not piece.is_harmless:
                for line in lines:
                    self._say(*line)
        elif piece and (report := piece.report()):
            self._keep_report(report, lines[0])
        else:
            for line in lines:
                self._take(line, is_again=True)

    def _say(self, number: int, raw: bytes, look: Look) -> None:
        """Keep the sign that a line is, if it is one."""
        if not look.may_have_words:
            return
        if b"\x1b[" in raw:
            raw = COLOURS.sub(b"", raw)
        if not (told := self._read(raw, look)):
            return
        if told.word.above:
            lines = [*self._above(number)[-ABOVE:], raw]
            if not any(re.search(told.word.above.encode(), line) for line in lines):
                return
        kept = self._keep(told.cause, LINE)
        kept.number, kept.raw = number, raw

    def _read(self, raw: bytes, look: Look) -> words.Told | None:
        """Return what a line tells, which one with other ids and numbers may have told before."""
        if len(raw) > LONGEST_KEPT or len(self._told) == MOST_KEPT:
            return words.read(raw, look.literals)
        key = _without_ids(raw) if self._has_ids else raw
        key = LONG_NUMBER.sub(b"0000", key) if look.depends_on_numbers else key.translate(ZEROES)
        if key not in self._told:
            self._told[key] = words.read(raw, look.literals)
        return self._told[key]

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
            kept.number, kept.raw, kept.time = line.number, quote.encode(), report.time

    def _end_block(self) -> Iterator[Sign]:
        """Yield the signs of this block, the last of each kind."""
        for (cause, read, is_of_linux), kept in self._kept.items():
            its = TIME.search(kept.raw)
            time = its[0].decode() if its else kept.time or self._time_above(kept.number)
            yield Sign(
                cause=cause,
                read=read,
                place=self.path if read == REPORT else f"{self.path}:{kept.number}",
                time=time,
                quote=_shown(kept.raw) if read == LINE else _text(kept.raw),
                frame=_text(kept.frame),
                is_of_linux=is_of_linux,
                number=kept.count,
            )
        self._kept.clear()
        self._told.clear()
        behind = self._number + len(self._block)
        self._time = self._time_above(behind)
        # The last line's end is the next block's beginning.
        self._number = max(self._number, behind - 1)
        self._block = []

    def _above(self, number: int) -> list[bytes]:
        """Return the lines of the block above a line."""
        return self._block[: max(0, number - self._number)]

    def _time_above(self, number: int) -> str:
        """Return the last time that stands above a line."""
        for line in reversed(self._above(number) if self._has_times else []):
            if times := list(TIME.finditer(line)):
                return times[-1][0].decode()
        return self._time


def _begun(line: Line, is_again: bool) -> Text | Json | Dump | None:
    """Return the piece that begins with a line; only a dump if it is read again."""
    for kind in line.look.kinds:
        if kind is Dump or not is_again:
            piece = kind()
            if piece.take(line.raw):
                return piece
    return None


def _without_ids(text: bytes) -> bytes:
    """Return a text without its UUIDs."""
    *parts, last = ID.split(text)
    return b"".join(part[:-8] if part[-8:].isalnum() else part for part in parts) + last


def _looks(lines: dict[bytes, bytes]) -> dict[bytes, Look]:
    """Return what can be seen in lines, for those that matter. Of lines that are the same without
    their digits, which are the keys, one is enough."""
    text = b"\n".join(lines)
    found: dict[bytes, list[bytes]] = {}
    for literal in LITERALS:
        if literal in text:
            for bare in lines:
                if literal in bare:
                    found.setdefault(bare, []).append(literal)
    for bare in lines:
        if bare.rstrip().endswith(crash_reports.BRACE):
            found.setdefault(bare, []).append(crash_reports.BRACE)
    return {
        bare: _look(tuple(literals))
        for bare, literals in found.items()
        if not words.is_own(lines[bare])
    }


def _look_at(raw: bytes) -> Look:
    """Return what can be seen in one line."""
    bare = raw.translate(None, DIGITS)
    return _looks({bare: raw}).get(bare, NOTHING)


@functools.lru_cache(maxsize=1000)
def _look(literals: tuple[bytes, ...]) -> Look:
    """Return what can be seen in a line with these literals."""
    return Look(
        literals,
        kinds=tuple(kind for kind, begins in KINDS if not begins.isdisjoint(literals)),
        may_have_parts=not WITH_PARTS.isdisjoint(literals),
        may_have_words=not words.BY_LITERAL.keys().isdisjoint(literals),
        depends_on_numbers=not words.WITH_NUMBERS.isdisjoint(literals),
    )


def _parts(raw: bytes, literals: Sequence[bytes]) -> list[bytes]:
    """Return the lines that a line with these literals holds."""
    if b"\\n" in raw and not WITH_ESCAPES.isdisjoint(literals):
        return raw.split(b"\\n")
    # Behind another file, without a last line end, there may be a head.
    before, head, behind = raw.partition(crash_reports.HEAD)
    if head and unmarked(before).strip():
        return [before, head + behind]
    return [raw]


def _text(line: bytes) -> str:
    """Return the beginning of a line as text."""
    return COLOURS.sub(b"", line[: 4 * SHOWN]).decode(errors="replace").strip()[:SHOWN]


def _shown(line: bytes) -> str:
    """Return a line, or as much of a long one as shows what names a death."""
    told = words.read(line, _look_at(line).literals)
    before = line[: told.start][-4 * SHOWN :].decode(errors="replace") if told else ""
    if told and len(before) > SHOWN // 2 and len(line) > SHOWN:
        return f"... {before[-SHOWN // 2 :]}{_text(line[told.start :])[: SHOWN // 2]}"
    return _text(line)


def earliest(time: str) -> float:
    """Return the earliest moment that a written time can mean, in seconds since the epoch; 0 if
    it is none."""
    found = TIME.match(time.encode())
    if not found:
        return 0
    *numbers, zone = found.groups(b"0")
    year, month, day, hour, minute, second = map(int, numbers)
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second)
        at = moment.replace(tzinfo=datetime.timezone.utc).timestamp()
    except ValueError:  # as of the 31st of June
        return 0
    if zone[:1] in (b"+", b"-"):
        return at - int(zone[:1] + b"1") * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return at - 14 * 3600 if zone == b"0" else at  # No zone is farther east.
