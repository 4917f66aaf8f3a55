"""Reads logs: each line that names a death, and each dump of faulthandler, is a sign."""

from __future__ import annotations

import collections
import datetime
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from . import causes

BLOCK, AHEAD = 2**20, 2**16  # bytes; a dump is shorter than AHEAD
NUMBER = rb"[\"']?(?: was| is)?[ \t:=(\[]{1,5}[\"'<]?(?:%s)(?![\w%%]|[.:,/-]\d)"
CODES = NUMBER % rb"-11|-10|-6|134|138|139"
# A line that names a death. Each alternative begins with a rare letter, for speed; its first four tell its kind.
DEATH = re.compile(
    rb"(?:Python error: (?:Segmentation fault|Bus error|Aborted)|FORKED_AND_YOU|Invalid auth tok"
    rb"|k(?:\(\) was called(?<=fork\(\) was called)|ed and you cannot use| pre-exec(?<=of fork pre-exec))"
    rb"|/(?:execution/[^\n]{0,300}?\b40[13] |cores/core\.\d)|Unauthorized' for url '[^']*/execution/"
    rb"|Forbidden' for url '[^']*/execution/|SEGV\b|SIGBUS\b|SIGABRT\b|gment(?i:ation fault\b)|GMENTATION FAULT\b"
    rb"|gfault(?<=segfault)|E(?:XC_BAD_ACCESS|rror 13[489]\b(?<=\] Error \d\d\d))|Bus [eE]rror\b|b(?:us error\b"
    rb"|ort(?: trap\b|\b(?<=sh: abort)| (?<=\d abort ) ))|gnal%s|GNAL%s|xit(?:ed)?(?:[ _]?(?:with|status)){0,2}%s"
    rb"|d(?:e(?<!rror code)(?i:(?<=\Wcode)|(?<=_code)|(?<=exitcode)|(?<=returncode))(?:%s|%s)"
    rb"| returned(?<=waitpid returned)%s| \(rc=-(?:11|10|6)\)|arwin_set_process_title)).*"
    % (*[NUMBER % b"11|10|6"] * 2, CODES, CODES, NUMBER % b"11", NUMBER % b"11|10|6|134|138|139")
)
KINDS = {b"Pyth": "dump", b"/cor": "dump", b"darw": "setproctitle", b"k() ": "objective-c"}
KINDS.update(dict.fromkeys((b"FORK", b"ked "), "corefoundation"))
KINDS.update(dict.fromkeys((b"Inva", b"/exe", b"Unau", b"Forb"), causes.API.name))
# What these commands print.
OWN = re.compile(rb"[\s>]*(?:(?:line  | {8})\| |with(?:out)? the shim |\"(?:quote|SIG\w+)\": )")
TIME = re.compile(
    rb"(20\d\d)[-/](\d\d)[-/](\d\d)[T ,]{1,2}(\d\d):(\d\d)(?::(\d\d))?(?:[.,]\d+)?(?: ?(Z\b|UTC|GMT|[+-]\d\d:?\d\d\b))?"
)
ANSI = re.compile(r"\x1b\[[\d;]*m")
# What stands in a dump of faulthandler, in plain lines, behind a program's name, or in JSON; or in one of lldb.
DUMP = re.compile(
    rb"(?P<thread>Thread|Current thread|Stack)\b[^\n]{0,99}?most recent call first"
    rb"|(?P<end>Fatal Python|Extension mod|Process \d+ stopped|\n  thread #)|frame #\d+: 0x\w+ ([^\s`]+)`([^\s(+]+)"
    rb'|File \\*"(?P<python>[^"\n]+?)\\*", line [\d?]+,? in ([^\s"\\\x1b]+)|Binary file \\*"[^"\n]*?([^"/\n]+?)\\*", at ([^\s+"\\]+)'
)


class Sign(NamedTuple):
    """What tells that processes died; `number` of one cause in one block of a log, and the last of them."""

    cause: str
    place: str  # path:line of a log, or a crash report's path
    time: str  # as it is written; "" if there is none
    quote: str
    number: int = 1


def earliest(time: str) -> float:
    """Return the earliest moment that a written time can mean, in seconds since the epoch; 0 if it is none."""
    try:
        *numbers, zone = TIME.match(time.encode()).groups(b"0")  # type: ignore[union-attr]
        at = datetime.datetime(*map(int, numbers), tzinfo=datetime.timezone.utc).timestamp()  # type: ignore[arg-type,misc]
    except (AttributeError, ValueError):
        return 0
    if zone[:1] in (b"+", b"-"):
        return at - int(zone[:1] + b"1") * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return at - 14 * 3600 if zone == b"0" else at  # No zone is farther east.


def read_log(file: BinaryIO, head: bytes, place: str) -> Iterator[Sign]:
    """Yield the signs in a log, whose first bytes were read already. Raises ValueError if it is not text."""
    if b"\0" in head[:AHEAD]:
        raise ValueError("not text")
    number, time, block, more = 1, "", head, b"more"
    while more:
        more = file.read(BLOCK)
        block += more
        sure = max(0, len(block) - AHEAD)
        end = (block.rfind(b"\n", 0, sure) + 1 or sure) if more else len(block)
        found: dict[
            str, tuple[int, int, int]
        ] = {}  # how often, and where the last line begins and ends
        for hit in DEATH.finditer(block, 0, end):
            begin = block.rfind(b"\n", 0, hit.start()) + 1
            if cause := _cause(block, begin, hit.start()):
                found[cause] = found.get(cause, (0,))[0] + 1, begin, hit.end()
        for cause, (count, begin, stop) in found.items():
            its = TIME.search(block, begin, stop)
            when = its[0].decode() if its else _last_time(block, begin) or time
            line = number + block.count(b"\n", 0, begin)
            quote = ANSI.sub(
                "", block[begin : min(stop, begin + 1000)].decode(errors="replace")
            ).strip()
            yield Sign(cause, f"{place}:{line}", when, quote, count)
        time = _last_time(block, end) or time
        number += block.count(b"\n", 0, end)
        block = block[end:]


def _last_time(block: bytes, end: int) -> str:
    """Return the last time that stands in the lines before `end`, "" if there is none."""
    last = collections.deque(TIME.finditer(block, max(0, end - AHEAD), end), maxlen=1)
    return last[0][0].decode() if last else ""


def _cause(block: bytes, begin: int, start: int) -> str:
    """Return the name of the cause that a line tells, "" if it is our own output or part of an address."""
    if OWN.match(block, begin):
        return ""
    kind = KINDS.get(block[start : start + 4], causes.UNKNOWN.name)
    before = block[max(begin, start - 200) : start]
    if kind == "dump" or b"stop reason = " in before:
        return _of_dump(block, start)
    word = before.rpartition(b" ")[2].rpartition(b'"')[2] if kind == causes.UNKNOWN.name else b""
    is_address = word[:1] == b"/" or b"?" in word or b"&" in word or b"://" in word
    return "" if is_address else kind


def _of_dump(block: bytes, start: int) -> str:
    """Return the name of the cause that the frames of a dump tell; other lines may stand between them."""
    frames, native, current = list[str](), list[str](), True
    for line in DUMP.finditer(block, start, start + AHEAD):
        if line["end"] or line["thread"] and frames and b"C stack" not in line[0]:
            break
        if line["thread"]:
            current = line["thread"] != b"Thread"
        elif current:
            told = b" ".join(part for part in line.groups()[2:] if part).decode(errors="replace")
            (frames if line["python"] else native).append(told)
    return causes.of_dump(tuple(frames), "\n".join(native)).name
