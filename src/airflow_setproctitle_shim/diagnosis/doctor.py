"""Looks where macOS and Airflow write, or at what it is given, and groups the signs of deaths by cause."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from . import causes, crash_reports, signs
from .status import status

SAVE_OUTPUT = "Start Airflow again, and save what it prints: `airflow standalone > standalone.log 2>&1`."


def diagnose(named: list[str]) -> dict[str, Any]:
    """Return what `doctor --json` prints, of the files and directories named, or else of the default places.

    "-" is standard input.
    """
    shim = status()
    missing, not_read, looked_at = list[str](), dict[str, str](), Counter[str]()
    # How many signs of each cause, and the last one.
    found: dict[str, tuple[int, signs.Sign]] = {}
    airflow_3 = False
    for path in _files([Path(name) for name in named] or _default_places(), missing, not_read):
        here: dict[str, tuple[int, signs.Sign]] = {}
        try:
            with path.open("rb") if str(path) != "-" else sys.stdin.buffer as file:
                head = file.read(signs.BLOCK)
                airflow_3 |= bool(signs.AIRFLOW_3.search(head))
                for sign in _signs(file, head, str(path), looked_at):
                    here[sign.cause] = here.get(sign.cause, (0,))[0] + sign.number, sign
        except (OSError, ValueError) as error:
            not_read[str(path)] = getattr(error, "strerror", None) or str(error)
        for cause, (count, last) in here.items():
            before, known = found.get(cause, (0, last))
            last = max(known, last, key=lambda sign: signs.moments(sign.time)[0])
            found[cause] = before + count, last
    told = [
        _told(cause, *found[cause.name], bool(named), shim["installed"])
        for cause in causes.ALL
        if cause.name in found
    ]
    deaths = [death for death in told if death["cause"] != causes.API.name]
    return {
        "ok": shim["ok"] and not any(death["attention"] for death in deaths),
        "shim": {key: shim[key] for key in ("ok", "on", "says", "fix", "installed")},
        "deaths": deaths,
        "notes": [note for note in told if note not in deaths],
        "advice": [causes.FAULTHANDLER, SAVE_OUTPUT] if airflow_3 and not deaths else [],
        "looked_at": looked_at,
        "missing": missing,
        "not_read": [{"path": path, "why": why} for path, why in not_read.items()],
    }


def _told(cause: causes.Cause, count: int, last: signs.Sign, named: bool, installed: str) -> dict[str, Any]:
    """Return what is to be said of one cause."""
    attention = cause.prevented is False and cause not in (causes.NOT_FORK, causes.API)
    if cause.prevented is not False:
        attention = named or signs.moments(last.time)[0] > signs.moments(installed)[0]
    elif (variable := re.match(r"export (\w+)='?(\w+|\*)", cause.variable)) and os.environ.get(
        variable[1]
    ) == variable[2]:
        attention = False
    return {
        "cause": cause.name,
        "prevented": cause.prevented,
        "says": cause.says,
        "advice": list(cause.helps),
        "source": cause.source and f"https://github.com/{cause.source}",
        "attention": attention,
        "count": count,
        "last": {"place": last.place, "time": last.time, "quote": last.quote},
    }


def _default_places() -> list[Path]:
    reports = [Path(home, "Library/Logs/DiagnosticReports") for home in (os.path.expanduser("~"), os.sep)]
    home = os.path.expanduser(os.environ.get("AIRFLOW_HOME") or "~/airflow")
    files = (
        name for end in ("log", "out", "err") for name in sorted(glob.glob(f"{glob.escape(home)}/*.{end}"))
    )
    return [*reports, Path(home, "logs"), *map(Path, files)]


def _files(places: list[Path], missing: list[str], not_read: dict[str, str]) -> Iterator[Path]:
    """Yield the files in the places; note places that are missing, and directories that cannot be read."""
    for place in places:
        if str(place) == "-" or place.exists() and not place.is_dir():
            yield place
        elif not place.exists():
            missing.append(str(place))
        else:
            for directory, _, names in os.walk(
                place, onerror=lambda error: not_read.update({error.filename: error.strerror})
            ):
                # macOS keeps reports of much else beside those of crashes.
                ends = (".ips", ".crash") if "DiagnosticReports" in directory else ("",)
                files = (Path(directory, name) for name in sorted(names) if name.endswith(ends))
                yield from (file for file in files if file.is_file())


def _signs(file: BinaryIO, head: bytes, place: str, looked_at: Counter[str]) -> Iterator[signs.Sign]:
    """Yield the signs in a file by what it holds, and count it."""
    if not crash_reports.is_report(head.decode("utf-8-sig", "replace")):
        looked_at["log"] += 1
        yield from signs.read_log(file, head, place)
        return
    kind = "report of another program"
    try:
        text = (head + file.read(crash_reports.LARGEST)).decode("utf-8-sig", "replace")
        for sign in crash_reports.read_report(text, place):
            kind = "crash report"
            yield sign
    finally:
        looked_at[kind] += 1
