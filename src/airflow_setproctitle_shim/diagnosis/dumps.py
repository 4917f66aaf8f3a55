"""Reads dumps: faulthandler's (plain, behind a program's name, or in JSON), lldb's and uWSGI's.
A dump is given line by line, and says which lines are its own."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from . import causes
from .crash_reports import FRAME, unmarked

SIGNALS = rb"SIG(?:SEGV|BUS|ABRT|TRAP|ILL)\b"


LONGEST_KEPT = 1000  # bytes of a line whose reading is kept for the next dump
MOST_FRAMES = 200  # faulthandler prints at most 100 of a thread


class Head(NamedTuple):
    """What a dump begins with."""

    who: str  # prints it
    example: str
    sought: bytes
    pattern: bytes  # for the line


# The rest is told by who prints it, and by whether a process died.
HEADS = (
    Head(
        who="faulthandler",
        example="Fatal Python error: Segmentation fault",
        sought=b"Python error: ",
        pattern=rb"Python error: (?:Segmentation fault|Bus error|Aborted|Illegal instruction)",
    ),
    Head(
        who="lldb",
        example="* thread #1, stop reason = EXC_BAD_ACCESS (code=1, address=0x0)",
        sought=b"stop reason = ",
        pattern=rb"stop reason = (?:EXC_BAD|EXC_CRASH|EXC_BREAKPOINT|signal " + SIGNALS + rb")",
    ),
    Head(
        who="lldb",
        example="Core file '/cores/core.74570' (x86_64) was loaded.",
        sought=b"/cores/core.",
        pattern=rb"/cores/core\.\d",
    ),
    Head(
        who="uWSGI",
        example="!!! uWSGI process 20991 got Segmentation Fault !!!",
        sought=b"uWSGI process ",
        pattern=rb"uWSGI process \d+ got Segmentation Fault",
    ),
)
# What is sought has no digit: logs are searched without theirs.
BEGINS = (
    *(head.sought for head in HEADS),
    # Its first line was not copied, or nobody died.
    b"most recent call first",
    b"Timeout (",
    b", line  in ",
    b", line ??? in ",
)
# What follows, so that the lines between need not be looked at.
LATER = (
    b"Binary file ",
    b"frame #",
    b"thread #",
    b"Extension modules: ",
    b" stopped",
)
HEAD = re.compile(b"|".join(head.pattern for head in HEADS))
IS_LLDBS = re.compile(rb"stop reason = |/cores/core\.")
TIMEOUT = re.compile(rb"Timeout \(\d+:\d\d:\d\d")
PART = re.compile(
    rb'File \\*"(?P<file>[^"\\\n]+)\\*", line [\d?]+ in (?P<python>[^\s"\\\x1b]+)'
    rb'|Binary file \\*"[^"\n]*?(?P<binary>[^"/\n]+?)\\*", at (?P<native>[^\s+"\\]+)'
    rb"|frame #\d+: 0x\w+ (?P<image>[^\s`]+)`(?P<symbol>.+?)(?= \+ \d| at |\s*$)"
    rb"|(?P<current>Stack|Current thread)\b(?P<c_stack>'s C)?.{0,99}?most recent call first"
    rb"|(?P<again>\* thread #\d)|(?P<other>Thread 0x|thread #\d)"
    rb"|(?P<end>Extension modules: |Process \d+ stopped)"
)
OF_LINUX = re.compile(rb"-linux-gnu|^/usr/(local/)?lib/python\d|^/home/")
OF_MACOS = re.compile(rb"^/Users/|^/opt/homebrew/|/Cellar/|\.framework/")


class Dump:
    """A dump."""

    def __init__(self) -> None:
        self.head = b""
        self.python: list[bytes] = []  # "file function" of the thread that died
        self.native: list[bytes] = []  # "image symbol"
        self.lines: list[bytes] = []  # that these frames of Python stand in, then native ones
        self.native_lines: list[bytes] = []
        self.is_harmless = False  # It tells where a program hangs.
        self.is_current = True  # These are the frames of the thread that died.
        self.patience, self.is_patient = 30, True  # Lines of others may stand between its own.
        self.is_over, self.tail = False, b""

    def take(self, raw: bytes) -> bool:
        """Take a line if it is part of this dump. Afterwards the dump may be over."""
        kind, frame = _kept_part(raw) if len(raw) < LONGEST_KEPT else _part(raw)
        if kind in ("", "again"):
            return self._stack_frame(raw) or self._begin(raw)
        if kind == "python":
            if self.is_current:
                self.python.append(frame)
                self.lines.append(raw)
                self.is_over = len(self.lines) == MOST_FRAMES
            return True
        if kind == "native":
            if self.is_current:
                self.native.append(frame)
                self.native_lines.append(raw)
            return bool(self.head)
        if kind == "other":
            self.is_current = False
            return True
        if kind == "end":
            self.is_over = bool(self.native or self.python)
            return self.is_over
        return self._begin_thread(is_c_stack=kind == "c_stack")

    def _begin_thread(self, is_c_stack: bool) -> bool:
        if self.python and self.is_current and not (self.is_harmless or is_c_stack):
            return False  # the next dump
        self.is_current = True
        return True

    def _stack_frame(self, raw: bytes) -> bool:
        if b"uWSGI" in self.head and (frame := FRAME.match(unmarked(raw).decode(errors="replace"))):
            self.native.append(f"{frame[2]} {frame[3]}".encode())
            self.native_lines.append(raw)
            return True
        return False

    def _begin(self, raw: bytes) -> bool:
        if self.head:
            if not (IS_LLDBS.search(self.head) and b"stop reason = " in raw):
                return False
            self.is_current = True  # lldb shows the same thread again.
            return True
        if self.python or self.native:
            return False
        self.is_harmless = bool(TIMEOUT.search(raw))
        if self.is_harmless or HEAD.search(raw):
            self.head = raw
        return bool(self.head)

    @property
    def is_sure(self) -> bool:
        """Whether it is a dump, whatever follows."""
        return bool(self.head)

    @property
    def is_of_linux(self) -> bool:
        """Whether its paths are Linux's."""
        return _are_of_linux(tuple(self.python))

    def judge(self) -> tuple[causes.Cause, bytes] | None:
        """Return the cause that it suggests, and the line of the frame that does; None if nobody
        died of what it tells."""
        if self.is_harmless:
            return None
        native = tuple(frame.decode(errors="replace") for frame in self.native)
        cause, number = causes.of_native(native, is_forked=False)
        lines = self.native_lines
        if cause is causes.UNKNOWN and self.python:
            cause, number = causes.of_python(tuple(self.python))
            lines = self.lines
        if cause is causes.UNKNOWN and b"uWSGI" not in self.head:
            cause, number = causes.of_native(native, is_forked=True)
            lines = self.native_lines
        if cause is causes.UNKNOWN:
            return (cause, b"") if self.head else None
        return cause, lines[number]


def _part(raw: bytes) -> tuple[str, bytes]:
    """Return what a line is to a dump, and its frame: "file function" or "image symbol"."""
    part = PART.search(raw)
    kind = part.lastgroup if part else None
    if part is None or kind is None:
        return "", b""
    if kind == "python":
        return kind, part["file"] + b" " + part["python"]
    if kind in ("native", "symbol"):
        return "native", (part["binary"] or part["image"]) + b" " + part[kind]
    return kind, b""


_kept_part = functools.lru_cache(maxsize=1000)(_part)


@functools.lru_cache(maxsize=100)
def _are_of_linux(frames: tuple[bytes, ...]) -> bool:
    return any(map(OF_LINUX.search, frames)) and not any(map(OF_MACOS.search, frames))
