"""Opens what people have at hand, and gives it as blocks of whole lines of UTF-8: plain text,
gzip, UTF-16 with a mark, standard input."""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO, cast

BLOCK = 2**19  # bytes
LONGEST_LINE = 2**21  # bytes; a longer one is read in parts
SAVE_AS_TEXT = "open it, and save it as plain text in UTF-8"
QUIET = 3  # seconds, after which it is said that reading goes on


class NotReadError(ValueError):
    """What a file is that cannot be read, and what to do."""


def blocks(path: str) -> Iterator[bytes]:
    """Yield blocks of whole lines; "-" is standard input. Raises OSError, EOFError and zlib.error
    for what is broken, NotReadError for what is no text."""
    rest, is_first, progress = b"", True, Progress(path)
    with _opened(path) as file:
        while block := file.read(BLOCK):
            progress.add(len(block))
            if is_first:
                block = block.lstrip(b"\0")  # A log that was emptied while it was written.
                if not block:
                    continue
                is_first = False
                if b"\0" in block:
                    raise NotReadError(f"not text, or not in UTF-8: {SAVE_AS_TEXT}")
                block = block.removeprefix(codecs.BOM_UTF8)
            lines = rest + block
            end = lines.rfind(b"\n") + 1
            if not end and len(lines) > LONGEST_LINE:
                end = len(lines)
            rest = lines[end:]
            if end:
                yield lines[:end]
    if rest:
        yield rest


class Progress:
    """Says on stderr, where that is a terminal, that reading goes on."""

    def __init__(self, path: str) -> None:
        self.path, self.read, self.said = path, 0, time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes that were read."""
        self.read += count
        if time.monotonic() > self.said + QUIET and sys.stderr.isatty():
            self.said = time.monotonic()
            print(f"reading {self.path}: {self.read // 10**6} MB so far", file=sys.stderr)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open a file as bytes of UTF-8."""
    with _standard_input() if path == "-" else open(path, "rb") as raw:
        file = _buffered(raw)
        if file.peek(2).startswith(b"\x1f\x8b"):
            file = _buffered(_unzipped(file))
        head = file.peek(5)
        if head.startswith(b"{\\rtf"):
            raise NotReadError(f"rich text: {SAVE_AS_TEXT}")
        is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        recoded = codecs.EncodedFile(file, "utf-8", "utf-16", "replace") if is_utf16 else file
        yield cast(BinaryIO, recoded)


def _buffered(file: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, file), BLOCK)


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise NotReadError("standard input is closed: pipe something into it")
    if sys.stdin.isatty():
        print("reading standard input; end it by Control-D on a line of its own", file=sys.stderr)
    return cast(BinaryIO, sys.stdin.buffer)


def _unzipped(file: io.BufferedReader) -> BinaryIO:
    try:
        import gzip  # Not every Python has it.
    except ImportError as error:
        raise NotReadError("this Python has no zlib: unpack it by gunzip") from error
    return cast(BinaryIO, gzip.GzipFile(fileobj=file))
