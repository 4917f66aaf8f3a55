"""Reads macOS's crash reports: the file (`.ips`), or the text that macOS's window shows and people paste."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import causes
from .signs import Sign

LARGEST = 2**26  # bytes; no crash report is larger
# Apple: "Interpreting the JSON format of a crash report", "Examining the fields in a crash report"; quoted, too.
REPORT = re.compile(
    r'(?m)^[ \t\xa0>`]*(?:\{.{0,2000}?"bug_type"|"(?:faultingThread|procName|usedImages)"\s*:|Process:[ \xa0]+\S.*\[\d+\]\s*$'
    r"|(?:Exception Type:[ \xa0]+EXC_|Crashed Thread:[ \xa0]+\d|Termination Reason:[ \xa0]+Namespace |Application Specific Info)"
    r"|Thread \d+.{0,80} Crashed\b|\d+ +\S.{0,99}?[ \t]0x[0-9a-f]{7,} \S.* \+ \d+[ \t\r]*$)"
)
CRASHED = re.compile(r"(?m)^Thread \d+.* Crashed\b.*\n((?:\d+ .*(?:\n|\Z))*)")
FRAME = re.compile(r"(?m)^\d+ +(\S.*?) +0x[0-9a-f]+ (.*?)( \+ \d+.*)?$")
FIELD = re.compile(r"(?m)^(Process|Path|Date/Time): +(.*?)(?: \[\d+\])?$")
FORKED = re.compile(r"on child side of fork|multi-threaded process forked|when fork\(\) was called")
PYTHON = re.compile(r"(?i)py(thon|py)[^/]*$|^(.*/)?(airflow|gunicorn|celery|uwsgi)$")
VALUE = r'"(?:%s)"\s*:\s*"([^"]*)"'


class Crash(NamedTuple):
    """What a report tells."""

    pythons: bool  # judged by names of the process and of what it had loaded
    frames: list[str]  # of the thread that crashed, "image symbol", innermost first
    notes: str  # the system's
    time: str
    whole: bool
    forked: bool  # or not known


def read_report(text: str, place: str) -> Iterator[Sign]:
    """Yield a sign for each crash report of Python. Raises ValueError at the end if one is cut off."""
    text = "\n" + re.sub(r"(?m)^[ >`]+|[ \r]+$", "", text.translate({9: " ", 160: " "}))
    text, _, body = text.partition("\n{")
    parts = [
        _of_text(part) for part in re.split(r"(?m)^(?=Process: )", text) if REPORT.search(part)
    ]
    bodies = [_of_json("{" + body)] if body else []
    # A report that stands there in text and in JSON is one.
    crashes = [crash for crash in parts if crash.frames] or bodies or parts
    for crash in (crash for crash in crashes if crash.pythons):
        lines = "\n".join(
            [*(frame.replace("com.apple.", "", 1) for frame in crash.frames), crash.notes]
        )
        cause, told = causes.of_report(lines, cut_off=not crash.whole)
        # A text has the system's notes, wherever it is cut off: people copy them first.
        if cause is causes.UNKNOWN and crash in parts:
            cause, told = causes.of_report(crash.notes)
        if not crash.forked and not cause.prevented:
            cause, told = causes.NOT_FORK if crash.whole else causes.UNKNOWN, ""
        yield Sign(cause.name, place, crash.time, told or next(iter(crash.frames), ""))
    if not all(crash.whole for crash in [*parts, *bodies] if crash.pythons):
        raise ValueError("this crash report is cut off")


def _of_text(text: str) -> Crash:
    fields, every = dict(reversed(FIELD.findall(text))), FRAME.findall(text)
    crashed = CRASHED.search(text)
    # Where it was cut off, its last line has no end.
    whole = bool(crashed and re.search(r" \+ \d+.*\n\Z|\b(start|main) \+ \d+\Z", crashed[1]))
    names = [*(value for key, value in fields.items() if key != "Date/Time")] or ["Python"]
    return Crash(
        any(map(PYTHON.search, [*names, *(image for image, *_ in every)])),
        [f"{image} {symbol}" for image, symbol, _ in FRAME.findall(crashed[1] if crashed else "")],
        text[: crashed.start()] if crashed else text,
        fields.get("Date/Time", ""),
        whole,
        # Who pastes a part may have left out what tells of the fork.
        not crashed or "Process" not in fields or bool(FORKED.search(text)),
    )


def _of_json(text: str) -> Crash:
    """Read the line of JSON and the body, or as much of them as is there."""
    body, at, notes = dict[str, Any](), 0, text.partition('"threads"')[0]
    with contextlib.suppress(ValueError, RecursionError):  # What is cut off cannot be decoded.
        while "threads" not in body:
            body, at = json.JSONDecoder().raw_decode(text, text.index("{", at))
    try:
        images = [str(image.get("name")) for image in body["usedImages"]]
        crashed = body["threads"][body["faultingThread"]]["frames"]
        frames = [f"{images[frame['imageIndex']]} {frame.get('symbol')}" for frame in crashed]
    except (AttributeError, IndexError, KeyError, TypeError):
        images = []
        crashed = text.partition('"triggered"')[2].partition('"frames"')[2].partition('"frames"')[0]
        frames = [f" {symbol}" for symbol in re.findall(VALUE % "symbol", crashed)]
    names = re.findall(VALUE % "app_name|procName|procPath", notes)
    time = "".join(re.findall(VALUE % "timestamp|captureTime", notes)[-1:])
    whole, pythons = bool(images), any(map(PYTHON.search, [*names, *images]))
    notes += f"\n{body.get('asi')}\n{body.get('termination')}"
    return Crash(
        pythons, frames, notes, time, whole, '"threads"' not in text or bool(FORKED.search(notes))
    )
