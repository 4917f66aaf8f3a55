"""Deaths told of in logs: how many, of which program, why, and whether before or since the installation."""

from __future__ import annotations

import datetime
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import signs
from .finding import Answer, Finding, Read
from .log_file import LogFile, Logs

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".Z", ".lz4", ".7z")


def read(places: Sequence[Path], installed_at: float, progress: Callable[[str], None]) -> Logs:
    """Return what the logs at or below the places tell. `installed_at`: seconds since the epoch. Never
    raises for a file: what could not be read is in the answer, with the reason."""
    logs = Logs(installed_at)
    seen: set[str] = set()
    for path, program, why in _files(places):
        real = os.path.realpath(path)
        if not why:
            if real in seen:  # A place may lie in another one.
                continue
            seen.add(real)
        progress(f"reading {path}")
        done = 0
        try:
            if not why:
                with path.open("rb") as file:
                    for done, why in LogFile(path, program, file, logs).read():  # noqa: B007
                        pass
        except OSError as error:
            why = error.strerror or str(error)
        logs.read.append(Read(path, done, why))
    return logs


def _files(places: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """Yield each file, what it is the log of by its place, and why it is not read, "" if it is."""
    for place in places:
        if not os.path.isdir(place):
            yield place, place.stem, _unreadable(os.path.realpath(place))
            continue
        failed: list[OSError] = []
        for directory, _, names in os.walk(place, onerror=failed.append):
            for path in (Path(directory, name) for name in sorted(names)):
                inside = path.relative_to(place).parts
                yield path, inside[0] if len(inside) > 1 else path.stem, _unreadable(str(path))
        for error in failed:
            yield Path(str(error.filename)), "", error.strerror or str(error)


def _unreadable(path: str) -> str:
    """Return why the file is not opened, "" if it may be."""
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", "") or str(error)
    if not stat.S_ISREG(mode):
        return "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
    return "packed" if path.endswith(PACKED) else ""


WATCH = (
    "start the programs with PYTHONFAULTHANDLER=1 and keep what they print, then name it with --logs; on macOS "
    "look at the crash reports, which the system writes in any case"
)


def crashes(logs: Logs, remedy: str) -> Answer:
    """Return what the logs tell of deaths. `remedy` is what switches the shim on, "" if it is on."""
    answer = Answer(looked_at(logs), read=logs.read)
    rows: list[dict[str, Any]] = [
        {
            "program": key[0],
            "cause": key[1],
            **{side: tally[side] for side in signs.SIDES},
            "first": tally.first,
        }
        for key, tally in sorted(logs.deaths.items())
        if any(tally.values())
    ]
    if rows:
        counts = {side: logs.total(side) for side in signs.SIDES}
        evidence = (
            "{since} death{s} by SIGSEGV or Objective-C's abort since the shim was installed, {before} before, "
            "{undated} undated"
        ).format(s="s" * (counts["since"] != 1), **counts)
        line = (
            "{program}: {since} since, {before} before, {undated} undated; cause: {cause}; first at {first}"
        )
        sources = dict.fromkeys(signs.CAUSES[row["cause"]].source for row in rows)
        answer.findings.append(
            Finding(
                "error" if counts["since"] else "note",
                evidence,
                _remedy(rows, remedy),
                tuple(filter(None, sources)),
                tuple(line.format(**row) for row in rows),
                {"counts": counts, "by": rows},
            )
        )
    if logs.airflow_3 and not logs.dumps:
        evidence = "Airflow 3 logs no death of its workers unless faulthandler is on, and it shows in no log"
        answer.findings.append(Finding("note", evidence, WATCH))
    if all(read.skipped for read in logs.read):
        evidence = f"no log was found to look for deaths in: {answer.looked_at}"
        answer.findings.append(Finding("note", evidence, WATCH))
    return answer


def _remedy(rows: list[dict[str, Any]], switch_on: str) -> str:
    """Return what helps against the deaths since the installation, by their causes."""
    since = {row["cause"]: row["program"] for row in rows if row["since"]}
    programs = {row["program"] for row in rows if row["since"] and row["cause"] == signs.SETPROCTITLE}
    if switch_on:
        programs |= {row["program"] for row in rows if row["since"] and row["cause"] == signs.UNKNOWN}
    start = (
        f"{switch_on}; then restart" if switch_on else "restart what may run since before the installation:"
    )
    remedies = [f"{start} {', '.join(sorted(programs))}"] if programs else []
    remedies += [signs.CAUSES[cause].remedy for cause in since if signs.CAUSES[cause].remedy]
    remedies += [f"to see the cause, {WATCH}"] if signs.UNKNOWN in since else []
    if not remedies and any(row["undated"] for row in rows):
        return "tell by the lines where they stand whether they are newer than the installation"
    return "; ".join(remedies) or "nothing to do: none is newer than the installation"


def looked_at(logs: Logs) -> str:
    """Return in a sentence what was read: "read 3 logs, 12.1 MB, 2026-10-02 to 2026-11-22; 2 .gz not read"."""
    whole = [read for read in logs.read if not read.skipped]
    size = sum(read.bytes for read in logs.read)
    text = f"read {len(whole)} {'log' if len(whole) == 1 else 'logs'}, {size / 1e6:.1f} MB"
    if logs.span[0] <= logs.span[1]:
        first, last = (datetime.datetime.fromtimestamp(time, signs.UTC).date() for time in logs.span)
        text += f", {first} to {last}"
    skipped = [(read.path.suffix, read.skipped) for read in logs.read if read.skipped]
    kinds = Counter(suffix if suffix in PACKED else f"({why})" for suffix, why in skipped)
    return "; ".join(
        [
            text,
            *(
                f"{number} {kind} not read"
                for kind, number in sorted(kinds.items(), key=lambda item: (item[0] not in PACKED, item[0]))
            ),
        ]
    )
