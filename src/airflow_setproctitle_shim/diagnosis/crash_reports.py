"""Reads macOS's crash reports: the file (`.ips`), or the text that macOS's window shows and people paste."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import causes
from .signs import Sign

LARGEST = 2**26  # bytes; no crash report is larger
# Apple, "Interpreting the JSON format of a crash report" (a line of JSON and a JSON body), and "Examining the
# fields in a crash report".
REPORT = re.compile(
    r'(?m)^[ \t>]*(?:\{.{0,2000}?"bug_type"|"(?:faultingThread|procName|usedImages)"\s*:|Process: +\S.*\[\d+\]\s*$'
    r"|Thread \d+.{0,80} Crashed\b|Exception Type: +EXC_)"
)
CRASHED = re.compile(r"(?m)^Thread \d+.* Crashed\b.*\n((?:\d+ .*(?:\n|\Z))*)")
FRAME = re.compile(r"(?m)^\d+ +(\S.*?)\s+0x[0-9a-f]+ (.*?)( \+ \d+.*)?$")
FIELD = re.compile(r"(?m)^(Process|Path|Date/Time): +(.*?)(?: \[\d+\])?$")
FORKED = re.compile(r"on child side of fork|multi-threaded process forked|when fork\(\) was called")
PYTHON = re.compile(r"(?i)python|^(airflow|gunicorn|celery|uwsgi)\b")
NAMES = re.compile(r'"(?:app_name|procName|procPath|name)"\s*:\s*"([^"]*)"')


class Crash(NamedTuple):
    """What a report tells."""

    names: list[str]  # of the process and of what it had loaded
    frames: list[str]  # of the thread that crashed, "image symbol", innermost first
    notes: str  # the system's
    time: str
    whole: bool
    forked: bool  # or cut off, so that this cannot be known

    @property
    def is_pythons(self) -> bool:
        return any(PYTHON.search(name.rpartition("/")[2]) for name in self.names)


def is_report(head: str) -> bool:
    """Return whether a file that begins so is, or holds, a crash report."""
    return bool(REPORT.search(head))


def read_report(text: str, place: str) -> Iterator[Sign]:
    """Yield a sign for each crash report of Python, none for those of other programs.

    Raises ValueError at the end if a report is cut off.
    """
    # As macOS wrote it: people indent it, or quote it by `>`.
    text = re.sub(r"(?m)^[ \t>]+|[ \r]+$", "", text.replace("\t", " "))
    text, _, body = ("\n" + text).partition("\n{")
    parts = [_of_text(part) for part in re.split(r"(?m)^(?=Process: )", text) if REPORT.search(part)]
    bodies = [_of_json("{" + body)] if body else []
    crashes = [crash for crash in [*parts, *bodies] if crash.is_pythons]
    # Of a report that stands there in text and in JSON, the text.
    for crash in [crash for crash in crashes if crash.frames and crash in parts] or bodies or parts:
        if crash in crashes:
            yield _sign(crash, place)
    if not all(crash.whole for crash in crashes):
        raise ValueError("this crash report is cut off")


def _sign(crash: Crash, place: str) -> Sign:
    lines = "\n".join([*(frame.replace("com.apple.", "", 1) for frame in crash.frames), crash.notes])
    cause, told = causes.of_report(lines, cut_off=not crash.whole)
    if not crash.forked and cause.prevented is not True:
        cause, told = causes.NOT_FORK, ""
    return Sign(cause.name, place, crash.time, told or next(iter(crash.frames), ""))


def _of_text(text: str) -> Crash:
    fields = dict(reversed(FIELD.findall(text)))
    crashed = CRASHED.search(text)
    lines = crashed[1].splitlines() if crashed else []
    frames = [found for found in map(FRAME.match, lines) if found]
    cut_off = not frames or (crashed and crashed.end() >= len(text.rstrip()) and not frames[-1][3])
    names = [fields[name] for name in ("Process", "Path") if name in fields] or ["Python"]
    return Crash(
        [*names, *(image for image, *_ in FRAME.findall(text))],
        [f"{frame[1]} {frame[2]}" for frame in frames],
        text[: crashed.start()] if crashed else text,
        fields.get("Date/Time", ""),
        not cut_off,
        # Who pastes a part of a report may have left out what tells of the fork.
        bool(cut_off or FORKED.search(text) or "Process" not in fields),
    )


def _of_json(text: str) -> Crash:
    """Read the line of JSON and the body, or as much of them as is there."""
    header, body, at = dict[str, Any](), dict[str, Any](), 0
    try:
        while "threads" not in body:
            header.update(body)
            body, at = json.JSONDecoder().raw_decode(text, text.index("{", at))
        images = [str(image.get("name")) for image in body["usedImages"]]
        frames = body["threads"][body["faultingThread"]]["frames"]
        lines = [f"{images[frame['imageIndex']]} {frame.get('symbol')}" for frame in frames]
        names = [str({**header, **body}.get(key)) for key in ("app_name", "name", "procName", "procPath")]
        notes = f"{body.get('asi')}\n{body.get('termination')}"
        time = str(body.get("captureTime") or header.get("timestamp"))
        return Crash([*names, *images], lines, notes, time, True, bool(FORKED.search(notes)))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        pass
    whole = bool(body or header) and not text[at:].strip("` \n")  # but no crash report
    notes, _, threads = text.partition('"threads"')
    frames = threads.partition('"triggered"')[2].partition('"frames"')[2].partition('"frames"')[0]
    symbols = re.findall(r'"symbol"\s*:\s*"([^"]*)"', frames)
    times = re.findall(r'"(?:captureTime|timestamp)"\s*:\s*"([^"]*)"', text)
    return Crash(
        NAMES.findall(text),
        [f" {symbol}" for symbol in symbols],
        notes,
        times[-1] if times else "",
        whole,
        True,
    )
