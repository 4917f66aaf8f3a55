"""The sentences that tell of a death and the frames that tell its cause; the tables lie beside this module."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple


def _table(name: str, columns: int) -> Iterator[list[str]]:
    for line in (files(__package__) / name).read_text("ascii").splitlines():
        if not line.startswith("#"):
            yield [column.strip() for column in line.split("::", columns - 1)]


class Cause(NamedTuple):
    """Something that kills a process, and what helps against it; causes.txt says what is what."""

    name: str
    remedy: str
    source: str
    native: str
    python: str


SETPROCTITLE, OBJECTIVE_C, UNKNOWN = "setproctitle", "Objective-C +initialize", "unknown"
*_CAUSES, CALLERS = (Cause(*row) for row in _table("causes.txt", 5))
CAUSES = {cause.name: cause for cause in _CAUSES}


def cause_of_crash(text: str) -> Cause:
    """Return the cause that a crash report's lines "image symbol" and the system's notes tell."""
    return next(cause for cause in _CAUSES if re.search(cause.native, text))


def cause_of_dump(frames: list[str]) -> str:
    """Return the name of the cause that a dump's frames ("file function", innermost first) tell."""
    if frames and re.search(CALLERS.python, frames[0]):
        return SETPROCTITLE
    return next((its.name for frame in frames for its in _CAUSES if re.search(its.python, frame)), UNKNOWN)


DUMP, GENERAL, REFUSED, OBJC = "dump", "general", "refused", "objc"
_PARTS: dict[str, str] = {}
_SENTENCES: list[tuple[int, str, bytes, Any]] = []  # number, family, words, and the search for the pattern
for _family, _words, _pattern in _table("sentences.txt", 3):
    for _name, _part in _PARTS.items():
        _pattern = _pattern.replace(_name, _part)
    if _family.startswith("{"):
        _PARTS[_family] = _pattern
    else:
        _find = re.compile(_pattern.encode()).finditer
        _SENTENCES.append((len(_SENTENCES), _family, _words.encode(), _find))
_PID, _BEFORE, _AFTER = (re.compile(_PARTS[name].encode()) for name in ("{PID}", "{BEFORE}", "{AFTER}"))
_NEEDLES = [re.compile(needle.encode() + b".*") for needle in _PARTS["{NEEDLES}"].split("  ")]
_CLOCK = re.compile(rb":\d\d:\d\d")
NEAR = 150  # bytes before and after a sentence


def lines(block: bytes) -> list[int]:
    """Return where the lines of a block begin that may hold a sentence, and the last one for its time."""
    found = {block.rfind(b"\n", 0, at.start()) + 1 for its in _NEEDLES for at in its.finditer(block)}
    return sorted(found | ({block.rfind(b"\n", 0, -1) + 1} if _CLOCK.search(block) else set()))


class Told(NamedTuple):
    """What a line tells: by which sentence, the process or job it names, and the program that it names."""

    sentence: int
    family: str
    name: bytes
    who: bytes


@functools.lru_cache(maxsize=1000)
def told(line: bytes) -> list[Told]:
    """Return the deaths or refusals that a line tells of, by the first sentence that it has."""
    for number, family, words, find in _SENTENCES:
        if words in line and (found := [*find(line)]):
            return [Told(number, family, *_names(one)) for one in found if family != GENERAL or _is_news(one)]
    return []


def _is_news(found: re.Match[bytes]) -> bool:
    rule = _BEFORE.search(found.string, max(0, found.start() - NEAR), found.start())
    return not (rule or _AFTER.match(found.string, found.end()))


def _names(found: re.Match[bytes]) -> tuple[bytes, bytes]:
    groups = found.groupdict(b"")
    name = b"job " + groups["job"] if groups.get("job") else groups.get("pid")
    if not name and (pid := _PID.search(found.string, max(0, found.start() - NEAR), found.end() + NEAR)):
        name = pid["pid"]
    return name or b"", groups.get("who", b"")
