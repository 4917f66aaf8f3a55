"""Reads dumps: faulthandler's (plain, behind a program's name, or in JSON), lldb's and uWSGI's.
A dump is given line by line, and says which lines are its own."""

from __future__ import annotations

import re
from typing import NamedTuple

from . import causes
from .crash_reports import FRAME, unmarked

SIGNALS = rb"SIG(?:SEGV|BUS|ABRT|TRAP|ILL)\b"


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
BEGINS = frozenset(
    (
        *(head.sought for head in HEADS),
        # Its first line was not copied, or nobody died.
        b"most recent call first",
        b"Timeout (",
        b", line ",
    )
)
# What follows, so that the lines between need not be looked at.
SOUGHT = (
    b"Binary file ",
    b"frame #",
    b"hread #",
    b"Thread 0x",
    b"Extension modules: ",
    b" stopped",
    b"end of backtrace",
    b"(lldb) quit",
)
HEAD = re.compile(b"|".join(head.pattern for head in HEADS))
TIMEOUT = re.compile(rb"Timeout \(\d+:\d\d:\d\d")
PART = re.compile(
    rb'File \\*"(?P<file>[^"\n]+?)\\*", line [\d?]+ in (?P<python>[^\s"\\\x1b]+)'
    rb'|Binary file \\*"[^"\n]*?(?P<binary>[^"/\n]+?)\\*", at (?P<native>[^\s+"\\]+)'
    rb"|frame #\d+: 0x\w+ (?P<image>[^\s`]+)`(?P<lldb>.+?)(?= \+ \d| at |\s*$)"
    rb"|(?P<current>Stack|Current thread)\b(?P<c_stack>'s C)?.{0,99}?most recent call first"
    rb"|(?P<other>Thread 0x|  thread #\d)"
    rb"|(?P<end>Extension modules: |Process \d+ stopped|end of backtrace|\(lldb\) quit)"
)
OF_LINUX = re.compile(r"-linux-gnu|^/usr/(local/)?lib/python\d|^/home/")
OF_MACOS = re.compile(r"^/Users/|^/opt/homebrew/|/Cellar/|\.framework/")


class Dump:
    """A dump."""

    def __init__(self) -> None:
        self.python = list[str]()  # "file function" of the thread that died
        self.native = list[str]()  # "image symbol"
        self.shown = dict[str, bytes]()  # the line that a frame stands in
        self.head = b""
        self.is_harmless = False  # It tells where a program hangs.
        self.is_current = True  # These are the frames of the thread that died.
        self.patience, self.is_patient = 30, True  # Lines of others may stand between its own.
        self.is_over = False

    def take(self, raw: bytes) -> bool:
        """Take a line if it is part of this dump. Afterwards the dump may be over."""
        part = PART.search(raw)
        kind = part.lastgroup if part else None
        if part and kind == "python":
            return self._frame(part, self.python, raw)
        if part and kind in ("native", "lldb"):
            return bool(self.head) and self._frame(part, self.native, raw)
        if part and kind in ("current", "c_stack"):
            return self._begin_thread(is_c_stack=kind == "c_stack")
        if kind == "other":
            self.is_current = False
            return True
        if kind == "end":
            self.is_over = bool(self.native or self.python)
            return self.is_over
        return self._stack_frame(raw) or self._begin(raw)

    def _frame(self, part: re.Match[bytes], frames: list[str], raw: bytes) -> bool:
        if self.is_current:
            told = " ".join(group.decode(errors="replace") for group in part.groups() if group)
            frames.append(told)
            self.shown.setdefault(told, raw)
        return True

    def _begin_thread(self, is_c_stack: bool) -> bool:
        if self.python and self.is_current and not (self.is_harmless or is_c_stack):
            return False  # the next dump
        self.is_current = True
        return True

    def _stack_frame(self, raw: bytes) -> bool:
        if b"uWSGI" in self.head and (frame := FRAME.match(unmarked(raw).decode(errors="replace"))):
            self.native.append(f"{frame[2]} {frame[3]}")
            return True
        return False

    def _begin(self, raw: bytes) -> bool:
        if self.head:
            if b"stop reason = " not in raw or b"Python error" in self.head:
                return False
            self.is_current = True  # lldb shows the same thread again.
            return True
        if self.python or self.native:
            return False
        self.is_harmless = bool(TIMEOUT.search(raw))
        is_head = self.is_harmless or bool(HEAD.search(raw))
        self.head = raw if is_head else b""
        return is_head

    @property
    def is_of_linux(self) -> bool:
        """Whether its paths are Linux's."""
        return any(map(OF_LINUX.search, self.python)) and not any(map(OF_MACOS.search, self.python))

    def judge(self) -> tuple[causes.Cause, bytes] | None:
        """Return the cause that it suggests, and the line of the frame that does; None if nobody
        died of what it tells."""
        if self.is_harmless:
            return None
        cause, told = causes.of_native(self.native, is_forked=False)
        if cause is causes.UNKNOWN and self.python:
            cause, number = causes.of_python(tuple(self.python))
            told = self.python[number]
        if cause is causes.UNKNOWN and b"uWSGI" not in self.head:
            cause, told = causes.of_native(self.native, is_forked=True)
        if cause is causes.UNKNOWN:
            return (cause, b"") if self.head else None
        return cause, self.shown.get(told, b"")
