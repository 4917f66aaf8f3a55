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
WATCH = (
    "start the programs with PYTHONFAULTHANDLER=1 and keep what they print, then name it with --logs; on macOS "
    "look at the crash reports, which the system writes in any case"
)


def read(places: Sequence[Path], installed_at: float) -> Logs:
    """Return what the logs at or below the places tell. `installed_at`: seconds since the epoch. Never
    raises for a file: what could not be read is in the answer, with the reason."""
    logs = Logs(installed_at)
    seen: set[str] = set()
    for path, program in _files(places, logs):
        done, why = 0, ""
        try:
            real = os.path.realpath(path)
            if path.is_symlink() and path not in places:
                why = "a symbolic link"
            elif not stat.S_ISREG(path.stat().st_mode):
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


def _files(places: Sequence[Path], logs: Logs) -> Iterator[tuple[Path, str]]:
    """Yield each file and what it is the log of by its place; directories that cannot be read are in `logs`."""

    def refused(error: OSError) -> None:
        logs.read.append(Read(Path(error.filename), 0, str(error.strerror)))

    for place in places:
        if not place.is_dir():
            yield place, place.stem
            continue
        for directory, _, names in os.walk(place, onerror=refused):
            for path in (Path(directory, name) for name in sorted(names)):
                inside = path.relative_to(place).parts
                yield path, inside[0] if len(inside) > 1 else path.stem


def crashes(logs: Logs, switch_on: str) -> Answer:
    """Return what the logs tell of deaths. `switch_on`: what switches the shim on, "" if it is on."""
    answer = Answer(looked_at(logs), read=logs.read)
    if logs.deaths:
        answer.findings.append(_told(logs, switch_on))
    if logs.airflow_3 and not logs.dumps:
        evidence = "Airflow 3 logs no death of its workers unless faulthandler is on, and it shows in no log"
        answer.findings.append(Finding("note", evidence, WATCH))
    if all(read.skipped for read in logs.read):
        evidence = f"no log was found to look for deaths in: {answer.looked_at}"
        answer.findings.append(Finding("note", evidence, WATCH))
    return answer


def _told(logs: Logs, switch_on: str) -> Finding:
    rows: list[dict[str, Any]] = [
        {"program": program, "cause": cause, **{side: its[side] for side in SIDES}, "first": its.first}
        for (program, cause), its in sorted(logs.deaths.items())
    ]
    counts = {side: logs.total(side) for side in SIDES}
    evidence = "{since} deaths" if counts["since"] != 1 else "1 death"
    evidence += " by SIGSEGV or Objective-C's abort since the shim was installed"
    line = "{program}: {since} since, {before} before, {undated} undated; cause: {cause}; first at {first}"
    causes = dict.fromkeys(signs.causes()[row["cause"]] for row in rows)
    return Finding(
        "error" if counts["since"] else "note",
        (evidence + ", {before} before, {undated} undated").format(**counts),
        _remedy(rows, switch_on),
        tuple(cause.source for cause in causes if cause.source),
        tuple(line.format(**row) for row in rows),
        {"counts": counts, "by": rows},
    )


def _remedy(rows: list[dict[str, Any]], switch_on: str) -> str:
    """Return what helps against the deaths since the installation, by their causes."""
    since = [row for row in rows if row["since"]]
    causes = sorted({row["cause"] for row in since})
    blamed = (signs.SETPROCTITLE, signs.UNKNOWN) if switch_on else (signs.SETPROCTITLE,)
    programs = ", ".join(sorted({row["program"] for row in since if row["cause"] in blamed}))
    start = f"{switch_on}; then restart"
    if not switch_on:
        start = "restart what may run since before the installation:"
    remedies = [f"{start} {programs}" * bool(programs), *(signs.causes()[cause].remedy for cause in causes)]
    remedies += [f"to see the cause, {WATCH}"] * (signs.UNKNOWN in causes)
    if not since and any(row["undated"] for row in rows):
        return "tell by the lines where they stand whether they are newer than the installation"
    return "; ".join(filter(None, remedies)) or "nothing to do: none is newer than the installation"


def looked_at(logs: Logs) -> str:
    """Return in a sentence what was read: "read 3 logs, 12.1 MB, 2026-10-02 to 2026-11-22; 2 .gz not read"."""
    whole = [read.bytes for read in logs.read if not read.skipped]
    left_out = [read for read in logs.read if read.skipped]
    span = [datetime.datetime.fromtimestamp(time, UTC) for time in logs.span if math.isfinite(time)]
    days = ", " * bool(span) + " to ".join(f"{day:%Y-%m-%d}" for day in span)
    text = f"read {len(whole)} log{'s' * (len(whole) != 1)}, {sum(whole) / 1e6:.1f} MB{days}"
    kinds = Counter(
        file.path.suffix if file.skipped == "packed" else f"({file.skipped})" for file in left_out
    )
    counted = sorted(kinds.items(), reverse=True)
    return "; ".join([text, *(f"{number} {kind} not read" for kind, number in counted)])
