"""Deaths told of in logs: how many, of which program, why, and whether before or since the installation."""

from __future__ import annotations

import datetime
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import log_file, signs
from .finding import Answer, Finding, Read
from .log_file import Logs
from .times import SIDES, UTC

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".Z", ".lz4", ".7z")


def read(places: Sequence[Path], installed_at: float) -> Logs:
    """Return what the logs at or below the places tell. `installed_at`: seconds since the epoch. Never
    raises for a file: what could not be read is in the answer, with the reason."""
    logs = Logs(installed_at)
    seen: set[str] = set()
    for path, program in _files(places):
        done = 0
        try:
            real, why = os.path.realpath(path), ""
            if path.is_symlink() and path not in places:
                why = "a symbolic link"
            elif not stat.S_ISREG(os.stat(path).st_mode):
                why = "not a regular file"
            elif path.suffix in PACKED:
                why = "packed"
            elif real in seen:  # A place may lie in another one.
                continue
            else:
                seen.add(real)
                done = log_file.read(path, program, logs)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or str(error)
        logs.read.append(Read(path, done, why))
    return logs


def _files(places: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each file, and each directory that could not be read, and what it is the log of by its place."""
    for place in places:
        failed: list[OSError] = []
        for directory, _, names in os.walk(place, onerror=failed.append) if os.path.isdir(place) else ():
            for name in sorted(names):
                path = Path(directory, name)
                inside = path.relative_to(place).parts
                yield path, inside[0] if len(inside) > 1 else path.stem
        for path in [Path(error.filename) for error in failed] if os.path.isdir(place) else [place]:
            yield path, path.stem


WATCH = (
    "start the programs with PYTHONFAULTHANDLER=1 and keep what they print, then name it with --logs; on macOS "
    "look at the crash reports, which the system writes in any case"
)


def crashes(logs: Logs, remedy: str) -> Answer:
    """Return what the logs tell of deaths. `remedy` is what switches the shim on, "" if it is on."""
    answer = Answer(looked_at(logs), read=logs.read)
    rows: list[dict[str, Any]] = [
        {"program": program, "cause": cause, **{side: its[side] for side in SIDES}, "first": its.first}
        for (program, cause), its in sorted(logs.deaths.items())
    ]
    if rows:
        counts = {side: logs.total(side) for side in SIDES}
        evidence = (
            f"{counts['since']} death{'s' * (counts['since'] != 1)} by SIGSEGV or Objective-C's abort since "
        )
        evidence += "the shim was installed, {before} before, {undated} undated".format(**counts)
        line = (
            "{program}: {since} since, {before} before, {undated} undated; cause: {cause}; first at {first}"
        )
        details = tuple(line.format(**row) for row in rows)
        sources = tuple(
            {signs.CAUSES[row["cause"]].source: 1 for row in rows if row["cause"] != signs.UNKNOWN}
        )
        severity, data = "error" if counts["since"] else "note", {"counts": counts, "by": rows}
        answer.findings.append(Finding(severity, evidence, _remedy(rows, remedy), sources, details, {**data}))
    if logs.airflow_3 and not logs.dumps:
        evidence = "Airflow 3 logs no death of its workers unless faulthandler is on, and it shows in no log"
        answer.findings.append(Finding("note", evidence, WATCH))
    if all(read.skipped for read in logs.read):
        evidence = f"no log was found to look for deaths in: {answer.looked_at}"
        answer.findings.append(Finding("note", evidence, WATCH))
    return answer


def _remedy(rows: list[dict[str, Any]], switch_on: str) -> str:
    """Return what helps against the deaths since the installation, by their causes."""
    causes = sorted({row["cause"] for row in rows if row["since"]})
    blamed = (signs.SETPROCTITLE, signs.UNKNOWN) if switch_on else (signs.SETPROCTITLE,)
    programs = sorted({row["program"] for row in rows if row["since"] and row["cause"] in blamed})
    start = (
        f"{switch_on}; then restart" if switch_on else "restart what may run since before the installation:"
    )
    remedies = [f"{start} {', '.join(programs)}"] if programs else []
    remedies += filter(None, (signs.CAUSES[cause].remedy for cause in causes))
    remedies += [f"to see the cause, {WATCH}"] if signs.UNKNOWN in causes else []
    if not remedies and any(row["undated"] for row in rows):
        return "tell by the lines where they stand whether they are newer than the installation"
    return "; ".join(remedies) or "nothing to do: none is newer than the installation"


def looked_at(logs: Logs) -> str:
    """Return in a sentence what was read: "read 3 logs, 12.1 MB, 2026-10-02 to 2026-11-22; 2 .gz not read"."""
    whole = [read for read in logs.read if not read.skipped]
    size = sum(read.bytes for read in whole) / 1e6
    days = [
        str(datetime.datetime.fromtimestamp(time, UTC).date()) for time in logs.span if abs(time) < math.inf
    ]
    text = (
        f"read {len(whole)} log{'s' * (len(whole) != 1)}, {size:.1f} MB"
        + ", " * bool(days)
        + " to ".join(days)
    )
    left_out = [(read.path.suffix, read.skipped) for read in logs.read if read.skipped]
    kinds = Counter(suffix if why == "packed" else f"({why})" for suffix, why in left_out)
    counted = sorted(kinds.items(), reverse=True)
    return "; ".join([text, *(f"{number} {kind} not read" for kind, number in counted)])
