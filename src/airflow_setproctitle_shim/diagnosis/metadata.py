"""What installers wrote down. It may be in any state: nothing here raises for metadata that is broken."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import stat
from pathlib import Path

from importlib_metadata import Distribution

READABLE = 64 * 2**20  # bytes; no source file is larger


def installed(name: str) -> Distribution | None:
    """Return the installed distribution of that name, or None."""
    with contextlib.suppress(Exception):
        found: Distribution = Distribution.from_name(name)
        return found
    return None


def version(name: str) -> str | None:
    """Return an installed distribution's version, "?" if it tells none; None if it is not installed."""
    dist = installed(name)
    with contextlib.suppress(Exception):
        return str(dist.version or "?") if dist else None
    return "?"


def recorded(dist: Distribution) -> dict[str, str]:
    """Return the paths in a distribution's RECORD, each with its hash as in "sha256=..."; {} if there are none."""
    with contextlib.suppress(Exception):
        return {row[0]: row[1] for row in csv.reader((dist.read_text("RECORD") or "").splitlines())}
    return {}


def is_intact(path: Path, digest: str) -> bool:
    """Return whether a file has the hash that RECORD gives for it; RECORD may give none."""
    mode, _, value = digest.partition("=")
    try:
        found = hashlib.new(mode, read(path)).digest() if mode else b""
    except (OSError, ValueError):
        return False
    return not mode or base64.urlsafe_b64encode(found).rstrip(b"=").decode() == value


def read(path: Path) -> bytes:
    """Return a regular file's content. Raises OSError for anything else, so that no FIFO blocks us."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > READABLE:
        raise OSError(f"{path} is no regular file of a size that can be read")
    return path.read_bytes()
