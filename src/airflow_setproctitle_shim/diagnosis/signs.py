"""The sentences that tell of a death and the frames that tell its cause; the tables lie beside this module."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import NamedTuple

# A sentence's number and family, what words a line with it has, and the sentence.
_Sentence = tuple[int, str, re.Pattern[bytes], re.Pattern[bytes]]


def _table(name: str, columns: int) -> list[list[str]]:
    rows = (files(__package__) / name).read_text("ascii").splitlines()
    return [[*map(str.strip, row.split("::", columns - 1))] for row in rows if not row.startswith("#")]


class Cause(NamedTuple):
    """Something that kills a process, and what helps against it; causes.txt says what is what."""

    name: str
    remedy: str
    source: str
    native: str
    python: str


SETPROCTITLE, OBJECTIVE_C, UNKNOWN = "setproctitle", "Objective-C +initialize", "unknown"
CALLERS = "callers of setproctitle"


@functools.cache
def causes() -> dict[str, Cause]:
    """Return the causes by name, in the order in which they are looked for."""
    return {row[0]: Cause(*row) for row in _table("causes.txt", 5)}


def cause_of_crash(text: str) -> Cause:
    """Return the cause that a crash report's lines "image symbol" and the system's notes tell."""
    return next(cause for cause in causes().values() if re.search(cause.native, text))


def cause_of_dump(frames: list[str]) -> str:
    """Return the name of the cause that a dump's frames ("file function", innermost first) tell."""
    if frames and re.search(causes()[CALLERS].python, frames[0]):
        return SETPROCTITLE
    known = [cause for name, cause in causes().items() if name != CALLERS]
    return next((its.name for frame in frames for its in known if re.search(its.python, frame)), UNKNOWN)


class Told(NamedTuple):
    """What a line tells: by which sentence, the process or job it names, and the program that it names."""

    sentence: int
    family: str
    name: bytes
    who: bytes


DUMP, GENERAL, REFUSED, OBJC = "dump", "general", "refused", "objc"
DIGITS = b"0123456789"
ONES = bytes.maketrans(DIGITS, b"1" * 10)
LOGGED = b"[{" + DIGITS  # what a time begins with, which no source text and no exception has before it
NEAR = 150  # bytes before and after a sentence


@functools.cache
def _sentences() -> tuple[list[_Sentence], dict[str, str]]:
    """Return the sentences, and the parts of patterns by name."""
    sentences, parts = list[_Sentence](), dict[str, str]()
    for family, *regexes in _table("sentences.txt", 3):
        for name, part in parts.items():
            regexes = [regex.replace(name, part) for regex in regexes]
        if family.startswith("{"):
            parts[family] = regexes[1]
        else:
            words, pattern = (re.compile(regex.encode()) for regex in regexes)
            sentences.append((len(sentences), family, words, pattern))
    return sentences, parts


@functools.cache
def _part(name: str) -> re.Pattern[bytes]:
    return re.compile(_sentences()[1][name].encode())


@functools.cache
def _needles() -> list[re.Pattern[bytes]]:
    return [re.compile(needle.encode() + b".*") for needle in _sentences()[1]["{NEEDLES}"].split("  ")]


def lines(block: bytes) -> list[tuple[int, int]]:
    """Return where the lines of a block that may hold a sentence begin and end."""
    found = (at.span() for needle in _needles() for at in needle.finditer(block))
    return sorted({block.rfind(b"\n", 0, begin) + 1: end for begin, end in found}.items())


def told(line: bytes) -> list[Told]:
    """Return the deaths or refusals that a line tells of, by the first sentence that it has."""
    shape = line.translate(None, DIGITS)
    # Long ones would fill the cache.
    candidates = _candidates if len(shape) < 1000 else _candidates.__wrapped__
    for number, family, pattern in candidates(shape):
        if found := [*pattern.finditer(line)]:
            if family == GENERAL or line[0] not in LOGGED:
                if _part("{RETOLD}").match(line):
                    number += len(_sentences()[0])
                found = [one for one in found if _is_news(one, family)]
            if family == GENERAL:
                del found[1:]  # General words may be told twice in a line.
            return [Told(number, family, *_names(one)) for one in found]
    return []


@functools.lru_cache(maxsize=1000)
def _candidates(shape: bytes) -> list[tuple[int, str, re.Pattern[bytes]]]:
    """Return the sentences whose words are in a line without its digits, in which lines of a kind differ."""
    return [
        (number, family, pattern) for number, family, words, pattern in _sentences()[0] if words.search(shape)
    ]


def _is_news(found: re.Match[bytes], family: str) -> bool:
    """Return whether the words tell of something that happened."""
    text, start, end = found.string, found.start(), found.end()
    before = text[max(0, start - NEAR) : start]
    # Lines of a kind differ in digits, and "0 workers died" is the only rule with one.
    kind = before.translate(ONES if before.find(b"0 ") < 0 else None)
    if _is_rule(kind, family == GENERAL):
        return False
    if family != GENERAL:
        return True
    explained = _part("{AFTER}").match(text, end) and not _part("{LEVEL}").match(text)
    return not (explained or _part("{DENIED}").match(text, end))


@functools.lru_cache(maxsize=1000)
def _is_rule(before: bytes, general: bool) -> bool:
    return bool(_part("{BEFORE}" if general else "{SOURCE}").search(before))


def _names(found: re.Match[bytes]) -> tuple[bytes, bytes]:
    groups = found.groupdict(b"")
    who = groups.get("who") or b""
    if name := groups.get("name"):
        return name, who
    pid = _part("{PID}").search(found.string, max(0, found.start() - NEAR), found.end() + NEAR)
    return pid["name"] if pid else b"", who
