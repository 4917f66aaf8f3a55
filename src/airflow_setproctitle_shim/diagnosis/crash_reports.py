"""Reads macOS's crash reports: the file (`.ips`), or the text that macOS's window shows and people
paste; in part, too. A report is given line by line, and says which lines are its own.

Apple: "Interpreting the JSON format of a crash report", "Examining the fields in a crash report".
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import causes

LARGEST = 2**24  # bytes of JSON; no crash report is larger
MOST_NOTES = 20

# What a report in text begins with, whatever of it was copied; and what is to be sought for that.
FIELDS = {
    "Process": r"\S.*\[\d+\]$",
    "Path": r"\S",
    "Date/Time": r"\d",
    "Exception Type": r"EXC_",
    "Termination Signal": r"\S",
    "Termination Reason": r"Namespace ",
    "Crashed Thread": r"\d",
    "Triggered by Thread": r"\d",
    "Application Specific Information": r"",
}
UNTELLING = {"Path", "Date/Time"}
TEXT_BEGINS = (
    *(f"{name}:".encode() for name in FIELDS if name not in UNTELLING),
    b" Crashed",
    b"multi-threaded process forked",
    b"fork pre-exec",
    b" + ",
)
# What follows, so that the lines between need not be looked at.
LATER = (
    *(f"{name}:".encode() for name in UNTELLING),
    b"Thread ",
    b" Backtrace",
    b"Binary Images",
    b"Full Report",
)
FIELD = re.compile(rf"({'|'.join(FIELDS)}): *(.*)")
THREAD = re.compile(r"Thread \d+(?::| name:|.{0,80} Crashed\b)|[A-Z]\w+( \w+)? Backtrace\b")
FRAME = re.compile(r"(\d+) +(\S+(?: \S+){0,2}?) +0x[0-9a-f]{7,16} +(\S.*?)( \+ \d+.*)?$")
NOTE = re.compile(r"\*\*\* multi-threaded process forked|crashed on child side of fork")
FORKED = re.compile(r"on child side of fork|multi-threaded process forked|when fork\(\) was called")
PYTHON = re.compile(r"(?i)py(thon|py)[^/]*$|^(.*/)?(airflow|gunicorn|celery|uwsgi)$")
# They end a process on behalf of others.
BEARERS = re.compile(r"libsystem_\w+\.dylib |\S+ faulthandler_|libc\+\+abi\.dylib ")

# The first lines of a report in JSON: its head, its body's brace, or whatever was copied of it.
HEAD = b'{"app_name"'
KEYS = (b'"bug_type"', b'"procName"', b'"faultingThread"')
BRACE = b"{"  # at the end of a line
# A line that opens and closes nothing: most are such.
PLAIN = re.compile(rb'\s*"\w+" ?: ?(?:"[^"\\]*"|[\d.]+|true|false),?$')
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
TOKENS = re.compile(STRING.pattern + rb"|[\s\d{}\[\],:.eE+-]+|true|false|null")
KEY = re.compile(rb'\s*"\w+"\s*:')
LEFT_OUT = re.compile(rb"\W*(?:snip\w*|cut|skipped|omitted|truncated)?\W*")
VALUE = r'"(?:%s)"\s*:\s*"([^"]*)"'

# What is printed before a line.
COLOURS = re.compile(rb"\x1b\[[\d;]*m")
MARKS = (
    rb"[ \t]*>",  # a mail's, or Markdown's
    rb"`+",  # Markdown's
    rb"#(?=\s)",  # a comment's
    rb"[ \t]*\xe2\x94\x82",  # a box's side
    rb" ?(?:[\w.:@/+-]+ +){1,3}\|(?=\s|$)",  # a program's name and a bar
    rb"20\d\d-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)(?=\s|$)",  # a time: docker's, kubectl's
)
NO_BREAK = "\xa0".encode()  # a blank at which no line is broken
BEFORE = re.compile(rb"(?:%s)+ ?" % b"|".join(MARKS))


def unmarked(raw: bytes) -> bytes:
    """Return a line without what is printed before it, its colours, and a web page's blanks."""
    line = COLOURS.sub(b"", raw) if b"\x1b[" in raw else raw
    line = line.replace(NO_BREAK, b" ")
    before = BEFORE.match(line)
    return line[before.end() :] if before else line


class Report(NamedTuple):
    """What a report tells."""

    is_python: bool  # judged by names of the process and of what it had loaded
    frames: Sequence[str]  # of the thread that crashed, "image symbol", innermost first
    notes: Sequence[str]  # the system's
    time: str
    is_forked: bool | None  # None: not known
    is_whole: bool
    is_cut_off: bool
    thread: str  # the name of the one that crashed, or the line that has it

    def judge(self) -> tuple[causes.Cause, str]:
        """Return the cause, and the line that tells it."""
        frames = [frame.replace("com.apple.", "", 1) for frame in self.frames]
        own = next((frame for frame in frames if not BEARERS.match(frame)), "")
        lines = (*frames, *self.notes)
        cause, number = causes.of_native(lines, self.is_forked is not False)
        if self.is_forked is False and not cause.prevented:
            return causes.NOT_FORK if self.is_whole else causes.UNKNOWN, own
        if cause is not causes.UNKNOWN:
            return cause, lines[number]
        note = next((note for note in self.notes if FORKED.search(note)), "")
        return cause, own or next(iter(frames), note)


class Text:
    """A report in text."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.notes: list[str] = []
        self.frames: list[str] = []  # of the thread that crashed, or of a stack without a title
        self.images: set[str] = set()  # in all frames
        self.number = -1  # of the last frame
        self.title = ""  # "Thread 0 Crashed"
        self.in_crashed = True
        self.is_complete = True  # No frame of that thread was left out.
        self.ends_whole = True
        self.full_report: Json | None = None  # the same again, in JSON
        self.awaits_json = False
        self.tail = b""  # what stands in its last line behind it
        self.patience = 50  # lines of others that may stand between its own
        self.is_over = False

    @property
    def is_patient(self) -> bool:
        """Whether other lines may stand between its own."""
        return self.full_report is None

    @property
    def is_sure(self) -> bool:
        """Whether it is a report, whatever follows."""
        return bool(self.title)

    def take(self, raw: bytes) -> bool:
        """Take a line if it is part of this report. Afterwards the report may be over."""
        if self.full_report:
            took = self.full_report.take(raw)
            self.is_over, self.tail = self.full_report.is_over, self.full_report.tail
            return took
        text = unmarked(raw).replace(b"\t", b" ").strip(b" \r\n`")
        line = text.decode(errors="replace")
        if self.awaits_json and line.startswith("{"):
            self.full_report = Json()
            return self.full_report.take(raw)
        if line in ("Binary Images:", "Full Report"):
            self.awaits_json |= line == "Full Report"
            self.patience = 2000  # A program has hundreds of images.
            return True
        if frame := FRAME.match(line):
            return self._frame(frame, raw.endswith(b"\n"))
        if field := FIELD.match(line):
            return self._field(field[1], field[2])
        if THREAD.match(line):
            return self._thread(line)
        is_objc = "Application Specific Information" in self.fields and FORKED.search(line)
        if NOTE.match(line) or is_objc:
            return self._note(line)
        return False

    def _field(self, name: str, value: str) -> bool:
        if self.images or name in self.fields or not re.match(FIELDS[name], value):
            return False  # the next report's, or a log's
        if name == "Process" and (self.fields or self.notes):
            return False  # It comes first.
        self.fields[name] = value
        return True

    def _note(self, line: str) -> bool:
        if self.images or line in self.notes or len(self.notes) == MOST_NOTES:
            return False
        self.notes.append(line)
        return True

    def _thread(self, line: str) -> bool:
        is_crashed = " Crashed" in line
        if is_crashed and (self.title or (self.frames and not self.fields)):
            return False
        if is_crashed:
            self.frames.clear()
            self.title = line
        self.in_crashed = is_crashed
        self.number = -1
        return True

    def _frame(self, frame: re.Match[str], has_line_end: bool) -> bool:
        number = int(frame[1])
        if number <= self.number:
            return False  # another stack
        self.images.add(frame[2])
        if self.in_crashed:
            self.frames.append(f"{frame[2]} {frame[3]}")
            self.is_complete &= number == self.number + 1
            self.ends_whole = bool(frame[4]) and (has_line_end or frame[3] in ("start", "main"))
        self.number = number
        return True

    def report(self) -> Report | None:
        """Return what it tells; None if it was no report."""
        if self.full_report and not self.frames:
            return self.full_report.report()
        is_forked = True if any(map(FORKED.search, self.notes)) else None
        cause, _ = causes.of_native(tuple(self.frames), is_forked=False)
        if not self.title:
            fields = self.fields.keys() - UNTELLING
            is_little = len(fields | set(self.notes)) < 2 or fields == {"Process"}
            if cause is causes.UNKNOWN and is_little:
                return None  # lines that look like a report's, or a stack that says nothing
        elif not is_forked and "Process" in self.fields:
            is_forked = False  # Who pastes a part may have left out what tells of the fork.
        names = [
            re.sub(r" \[\d+\]$", "", self.fields.get(name, "")) for name in ("Process", "Path")
        ]
        is_python = any(map(PYTHON.search, [*names, *self.images]))
        # Of an excerpt that names no process, what is known to kill Python's may be that.
        is_known = bool(is_forked) or cause is not causes.UNKNOWN
        is_likely = not any(names) and (is_known or not self.images)
        return Report(
            is_python=is_python or is_likely,
            frames=self.frames,
            notes=[*self.notes, self.fields.get("Termination Reason", "")],
            time=self.fields.get("Date/Time", ""),
            is_forked=is_forked,
            is_whole=bool(self.title and self.frames) and self.is_complete and self.ends_whole,
            is_cut_off=not self.ends_whole,
            thread=self.title,
        )


class Json:
    """A report in JSON: a line with its head, and a body; or one of them, or a part."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.size = 0
        self.depth = 0  # of brackets that are open
        self.tail = b""  # what stands in its last line behind it, or behind where it was cut off
        self.patience, self.is_patient = 1, False
        self.is_sure = False  # It is a report, whatever follows.
        self.is_over = False

    def take(self, raw: bytes) -> bool:
        """Take a line if it is part of this report. Afterwards the report may be over."""
        line = unmarked(raw).rstrip()
        if not self.lines:
            return self._begin(line)
        if self.depth > 0 and PLAIN.match(line):
            self._add(line)
            return True
        if self.depth == 1 and line[:1] == b"}" and line != b"}":
            line, self.tail = line[:1], line[1:] + b"\n"
        behind = _behind_json(line)
        if not self._goes_on(line, is_json=not behind):
            return False
        self._count(line, behind)
        return True

    def _begin(self, line: bytes) -> bool:
        if line != b"{" and not any(key in line for key in KEYS):
            return False
        if line[:1] != b"{":
            self.depth = 1  # What is above was not copied.
        self._count(line, _behind_json(line))
        return True

    def _goes_on(self, line: bytes, is_json: bool) -> bool:
        """Return whether a line can be the next one. What begins at the margin is something new."""
        if self.depth <= 0:
            return not line or (line[:1] == b"{" and KEYS[0] not in line)
        if line[:1] == b"{":
            return False
        return is_json or bool(KEY.match(line) or LEFT_OUT.fullmatch(line))

    def _count(self, line: bytes, behind: bytes) -> None:
        """Add a line and its brackets, and see whether the report is over. `behind`: what in the
        line is no JSON any more."""
        self._add(line)
        beside = STRING.sub(b"", line)
        self.depth += beside.count(b"{") + beside.count(b"[")
        self.depth -= beside.count(b"}") + beside.count(b"]")
        if behind:
            self.tail = behind
            self.is_over = not LEFT_OUT.fullmatch(line)
        elif self.depth <= 0 and line:
            self.is_over = KEYS[0] not in line  # else its body may follow

    def _add(self, line: bytes) -> None:
        self.lines.append(line)
        self.is_sure = self.is_sure or any(key in line for key in KEYS)
        self.size += len(line)
        self.is_over |= self.size > LARGEST

    def report(self) -> Report | None:
        """Return what it tells; None if it was no report."""
        return _of_json(b"\n".join(self.lines).decode(errors="replace")) if self.is_sure else None


def _behind_json(line: bytes) -> bytes:
    """Return what stands in a line behind the JSON that it begins with."""
    end = 0
    while token := TOKENS.match(line, end):
        end = token.end()
    return line[end:]


def _of_json(text: str) -> Report:
    """Read the line of JSON and the body, or as much of them as is there."""
    body, at, head = dict[str, Any](), 0, text.partition('"threads"')[0]
    with contextlib.suppress(ValueError, RecursionError):  # What is cut off cannot be decoded.
        while "threads" not in body:
            body, at = json.JSONDecoder().raw_decode(text, text.index("{", at))
    try:
        images = [str(image.get("name")) for image in body["usedImages"]]
        crashed = body["threads"][body["faultingThread"]]
        name = crashed.get("name")
        symbols = [(images[it["imageIndex"]], it.get("symbol")) for it in crashed["frames"]]
        frames = [f"{image} {symbol}" for image, symbol in symbols]
    except (AttributeError, IndexError, KeyError, TypeError):
        images, name = [], ""
        part = text.partition('"triggered"')[2].partition('"frames"')[2].partition('"frames"')[0]
        frames = [f" {symbol}" for symbol in re.findall(VALUE % "symbol", part)]
    names = re.findall(VALUE % "app_name|procName|procPath", head)
    termination = body.get("termination")
    namespace = termination.get("namespace") if isinstance(termination, dict) else ""
    notes = [*head.splitlines(), str(body.get("asi")), f"Namespace {namespace}"]
    is_forked = any(map(FORKED.search, notes)) or (False if '"threads"' in text else None)
    return Report(
        is_python=any(map(PYTHON.search, [*names, *images])),
        frames=frames,
        notes=notes,
        time="".join(re.findall(VALUE % "timestamp|captureTime", head)[-1:]),
        is_forked=is_forked,
        is_whole=bool(images),
        is_cut_off=not images,
        thread=str(name or ""),
    )
