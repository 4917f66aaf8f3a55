"""What a check answers: what it looked at, which files it read, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SEVERITIES = ("error", "warning", "note")  # processes can die; look at it; good to know


@dataclass(frozen=True)
class Finding:
    """Something worth knowing: how it shows, in a sentence, and what mends it, by a command where there is one."""

    severity: str
    evidence: str
    remedy: str
    sources: tuple[str, ...] = ()  # paths on github.com
    details: tuple[str, ...] = ()  # file:line, counts, paths
    data: dict[str, object] = field(default_factory=dict)  # more keys for JSON


@dataclass(frozen=True)
class Read:
    """A file that was to be read, how much of it was, and why not all of it, "" if it was."""

    path: Path
    bytes: int
    skipped: str


@dataclass
class Answer:
    """What one check looked at, in a sentence, and what came of it."""

    looked_at: str
    findings: list[Finding] = field(default_factory=list)
    read: list[Read] = field(default_factory=list)
