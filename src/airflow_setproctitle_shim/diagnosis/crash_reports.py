"""macOS's own crash reports: what killed a Python process, whose it was, whether it had forked, and when."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import signs, times
from .finding import Answer, Finding, Read

READABLE = 64 * 2**20  # bytes; no crash report is larger
FORKED = re.compile(r"on child side of fork|multi-threaded process forked|when fork\(\) was called")
PYTHON = re.compile(r"(?i)python|^(airflow|gunicorn|celery|uwsgi)\b")
OURS, ANOTHERS, UNTOLD = "this environment's Python", "another Python", "a Python (the path is not told)"
OTHER_PROGRAM, BROKEN = "of another program", "malformed or truncated"
OLD = "a .crash report has another format"
CONSOLE = "open it in Console"
IMPORT = "importing a native setproctitle can be behind it: it starts system services in the parent"


class Kind(NamedTuple):
    """What crash reports have in common."""

    cause: signs.Cause
    forked: bool
    whose: str  # OURS, ANOTHERS or UNTOLD


def crash_reports(places: Sequence[Path], installed_at: float, switch_on: str) -> Answer:
    """Return what the crash reports in directories and their `Retired`, or those files, tell.

    `installed_at`: seconds since the epoch; `switch_on`: what switches the shim on, "" if it is on.
    """
    paths, answer = list[Path](), Answer("")
    for directory in [at for place in places for at in (place, place / "Retired")]:
        try:
            paths += sorted(path for path in directory.iterdir() if path.suffix in (".ips", ".crash"))
        except NotADirectoryError:
            paths += [directory] * (directory in places)
        except OSError as error:
            if directory in places or not isinstance(error, FileNotFoundError):
                answer.read.append(Read(directory, 0, error.strerror or str(error)))
    groups: dict[Kind, list[tuple[Path, str]]] = {}
    for path in dict.fromkeys(paths):
        size, why = 0, ""
        try:
            if path.suffix == ".crash":
                why = OLD
            elif report := _report(path):
                size = path.stat().st_size
                groups.setdefault(report[0], []).append((path, times.side(report[1], installed_at)))
            else:
                why = OTHER_PROGRAM
        except OSError as error:
            why = error.strerror or str(error)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            named = path in places or PYTHON.search(path.name)
            why = f"{BROKEN}: {type(error).__name__} {error}" if named else OTHER_PROGRAM
        answer.read.append(Read(path, size, why))
    skipped = Counter(file.skipped.partition(":")[0] for file in answer.read)
    number = skipped.pop("", 0)
    read = f"read {number} crash report{'s' * (number != 1)} in {', '.join(map(str, places))}"
    answer.looked_at = "; ".join([read, *(f"{number} not read: {why}" for why, number in skipped.items())])
    answer.findings = [_finding(kind, found, switch_on) for kind, found in groups.items()]
    for why in sorted({*skipped} - {OTHER_PROGRAM, os.strerror(errno.ENOENT), OLD * bool(groups)}):
        paths = [file.path for file in answer.read if file.skipped.startswith(why)]
        evidence = f"{len(paths)} not read: {why}"
        details = tuple(map(str, paths))
        answer.findings.append(Finding("note", evidence, CONSOLE, (), details, {"cause": "not read"}))
    return answer


def _finding(kind: Kind, found: list[tuple[Path, str]], switch_on: str) -> Finding:
    """Return what reports of one kind tell; each comes with its side of the installation."""
    cause, forked, whose = kind
    counts = {side: sum(its == side for _, its in found) for side in times.SIDES}
    ours = cause.name == signs.SETPROCTITLE
    blamed = forked or ours
    how = f"{'in a forked child' if forked else 'not forked'}: the cause is {cause.name}"
    if not blamed:
        how = f"in a process that had not forked, so fork is not to blame: it died in {cause.name}"
    evidence = f"{len(found)} crash report{'s' * (len(found) > 1)} of {whose}, {how}"
    evidence += " ({since} since the shim was installed, {before} before, {undated} undated)".format(**counts)
    if forked and not ours:
        evidence += f"; {IMPORT}"
    remedy = (blamed and cause.remedy) or CONSOLE
    if ours:
        remedy = switch_on or "restart what may run since before the installation"
    if not counts["since"]:
        remedy = "nothing to do: none is known to be newer than the installation"
    attention = "error" if ours else "warning"
    return Finding(
        attention if counts["since"] and whose != ANOTHERS and blamed else "note",
        evidence,
        remedy,
        (cause.source,) * bool(cause.source),
        tuple(str(path) for path, _ in found),
        {"cause": cause.name, "forked": forked, "whose": whose, "counts": counts},
    )


def _report(path: Path) -> tuple[Kind, times.Moment] | None:
    """Return what an `.ips` file tells, None if it is of another program than Python. It is a line of JSON and a
    JSON body (Apple, "Interpreting the JSON format of a crash report"). Raises what malformed JSON raises."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > READABLE:
        raise OSError(0, "not a regular file of a report's size")
    header, body = map(json.loads, path.read_bytes().split(b"\n", 1))
    images = [image.get("name") for image in body["usedImages"]]
    names = [header.get("app_name"), header.get("name"), body.get("procName"), *images]
    if not any(PYTHON.search(str(name)) for name in names):
        return None
    frames = body["threads"][body["faultingThread"]]["frames"]
    lines = [f"{images[frame['imageIndex']]} {frame.get('symbol')}" for frame in frames]
    notes = f"{body.get('asi')}\n{body.get('termination')}"
    written = str(body.get("captureTime") or header.get("timestamp")).encode()
    cause = signs.cause_of_crash("\n".join([*lines, notes]))
    kind = Kind(cause, bool(FORKED.search(notes)), _whose(str(body.get("procPath"))))
    return kind, times.moment(times.DATED.match(written)) or times.NEVER


def _whose(path: str) -> str:
    """Return whose process has the executable at that path; macOS may write * for a part of it."""
    if "*" in path or not os.path.isabs(path):
        return UNTOLD
    homes = [os.path.realpath(home) for home in (sys.prefix, sys.base_prefix)]
    real = os.path.realpath(path)
    return OURS if any(os.path.commonpath([home, real]) == home for home in homes) else ANOTHERS
