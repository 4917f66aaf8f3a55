"""What installers wrote down. It may be in any state: nothing here raises for metadata that is broken."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
from pathlib import Path

from importlib_metadata import Distribution


def installed(name: str) -> Distribution | None:
    """Return the installed distribution of that name, or None."""
    with contextlib.suppress(Exception):
        return Distribution.from_name(name)  # type: ignore[no-any-return]  # it is not typed
    return None


def version(name: str) -> str:
    """Return an installed distribution's version, "" if there is none."""
    with contextlib.suppress(Exception):
        return str(Distribution.from_name(name).version or "")
    return ""


def recorded(dist: Distribution) -> dict[str, str]:
    """Return the paths in a distribution's RECORD, each with its hash as in "sha256=..."; {} if there are none."""
    with contextlib.suppress(Exception):
        return {row[0]: row[1] for row in csv.reader((dist.read_text("RECORD") or "").splitlines())}
    return {}


def is_intact(path: Path, digest: str | None) -> bool:
    """Return whether a file has the hash in RECORD: "" if RECORD gives none, None if the file is not in it."""
    mode, _, value = (digest or "").partition("=")
    try:
        return digest == "" or hashlib.new(mode, read(path)).digest() == base64.urlsafe_b64decode(
            value + "=="
        )
    except (OSError, ValueError, TypeError):
        return False


def read(path: Path) -> bytes:
    """Return a file's content. Raises OSError for a FIFO, a device, and what is too large to be a source file."""
    if not path.is_file() or path.stat().st_size > 2**26:
        raise OSError(f"{path} is no regular file of a size that can be read")
    return path.read_bytes()
