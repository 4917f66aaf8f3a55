"""macOS's own crash reports: what killed a Python process, whose it was, whether it had forked, and when."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import signs, times
from .finding import Answer, Finding, Read

READABLE = 64 * 2**20  # bytes; no crash report is larger
FORKED = re.compile(r"on child side of fork|multi-threaded process forked|when fork\(\) was called")
PYTHON = re.compile(r"(?i)python|^(airflow|gunicorn|celery|uwsgi)\b")
OURS, ANOTHERS, UNTOLD = "this environment's Python", "another Python", "a Python (the path is not told)"
CONSOLE = "open it in Console"


class Report(NamedTuple):
    """What a crash report tells."""

    cause: signs.Cause
    forked: bool
    whose: str  # OURS, ANOTHERS or UNTOLD
    side: str  # before or since the installation, or undated


def crash_reports(
    place: Path, installed_at: float, progress: Callable[[str], None], switch_on: str = ""
) -> Answer:
    """Return what the crash reports in a directory and its `Retired`, or in one file, tell.

    `installed_at`: seconds since the epoch; `switch_on`: what switches the shim on, "" if it is on.
    """
    paths = sorted([*place.glob("*.*"), *place.glob("Retired/*.*")]) if place.is_dir() else [place]
    read: list[Read] = []
    groups: dict[tuple[signs.Cause, bool, str], list[tuple[Path, str]]] = {}
    for path in paths:
        if path.suffix not in (".ips", ".crash") and path != place:
            continue
        progress(f"reading {path}")
        size, why = 0, "a .crash report has another format: open it in Console"
        try:
            if path.suffix != ".crash":
                size, report = _report(path, installed_at)
                groups.setdefault(report[:3], []).append((path, report.side))
                why = ""
        except OSError as error:
            why = error.strerror or str(error)
        except NotPython:
            why = "of another program"
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            why = "of another program"
            if path == place or PYTHON.search(path.name):
                why = f"malformed or truncated: {type(error).__name__} {error}"
        read.append(Read(path, size, why))
    whole = sum(not file.skipped for file in read)
    skipped = Counter(file.skipped.partition(":")[0] for file in read if file.skipped)
    parts = [
        f"read {whole} crash reports in {place}",
        *(f"{n} not read: {why}" for why, n in skipped.items()),
    ]
    answer = Answer(
        "; ".join(parts), [_finding(*key, found, switch_on) for key, found in groups.items()], read
    )
    if broken := [str(file.path) for file in read if file.skipped.startswith("malformed")]:
        evidence = f"{len(broken)} malformed or truncated crash report{'s' * (len(broken) > 1)}"
        answer.findings.append(
            Finding("note", evidence, CONSOLE, details=tuple(broken), data={"cause": "not read"})
        )
    return answer


def _finding(
    cause: signs.Cause, forked: bool, whose: str, found: list[tuple[Path, str]], switch_on: str
) -> Finding:
    counts = {side: sum(its == side for _, its in found) for side in times.SIDES}
    ours = cause.name == signs.SETPROCTITLE
    evidence = f"{len(found)} crash report{'s' * (len(found) > 1)} of {whose}"
    if forked or ours:
        evidence += f", {'in a forked child' * forked or 'not forked'}: the cause is {cause.name}"
    else:
        evidence += f", in a process that had not forked, so fork is not to blame: it died in {cause.name}"
    evidence += f" ({counts['since']} since the shim was installed, {counts['before']} before"
    evidence += f", {counts['undated']} undated)" if counts["undated"] else ")"
    remedy = cause.remedy or CONSOLE
    if ours:
        remedy = switch_on or "restart what may run since before the installation"
    elif forked:
        evidence += (
            "; importing a native setproctitle can be behind it: it starts system services in the parent"
        )
    if not counts["since"]:
        remedy = "nothing to do: none is known to be newer than the installation"
    elif not (forked or ours):
        remedy = CONSOLE
    severity = "note"
    if counts["since"] and whose != ANOTHERS and (forked or ours):
        severity = "error" if ours else "warning"
    data = {"cause": cause.name, "forked": forked, "whose": whose, "counts": counts}
    return Finding(
        severity,
        evidence,
        remedy,
        (cause.source,) if cause.source else (),
        tuple(str(path) for path, _ in found),
        data,
    )


class NotPython(Exception):
    """The report is of another program."""


def _report(path: Path, installed_at: float) -> tuple[int, Report]:
    """Return the size and the content of an `.ips` file: a line of JSON and then a JSON body (Apple,
    "Interpreting the JSON format of a crash report"). Raises OSError, NotPython, and what malformed JSON raises."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > READABLE:
        raise OSError(0, "not a regular file of a report's size")
    first, _, rest = path.read_bytes().partition(b"\n")
    header, body = json.loads(first), json.loads(rest)
    images = [image.get("name", "?") for image in body["usedImages"]]
    names = [header.get("app_name"), header.get("name"), body.get("procName"), *images]
    if not any(PYTHON.search(str(name)) for name in names):
        raise NotPython
    frames = body["threads"][body["faultingThread"]]["frames"]
    lines = [f"{images[frame['imageIndex']]} {frame.get('symbol', '')}" for frame in frames]
    notes = [*_strings(body.get("asi")), *_strings(body.get("termination"))]
    time = str(body.get("captureTime") or header.get("timestamp") or "").encode()
    dated = times.DATED.match(time)
    when = dated and times.moment(dated)
    cause = signs.cause_of_crash("\n".join([*lines, *notes]))
    forked = any(map(FORKED.search, notes))
    return info.st_size, Report(
        cause, forked, _whose(body.get("procPath")), times.side(when or times.NEVER, installed_at)
    )


def _strings(value: Any) -> Iterator[str]:
    """Yield the texts in what JSON holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _whose(path: object) -> str:
    """Return whose process has the executable at that path; macOS may write * for a part of it."""
    if not isinstance(path, str) or "*" in path:
        return UNTOLD
    homes = [Path(home).resolve() for home in (sys.prefix, sys.base_prefix, sys.base_exec_prefix)]
    it = Path(path).resolve()
    ours = it == Path(sys.executable).resolve() or any(home in it.parents for home in homes)
    return OURS if ours else ANOTHERS
