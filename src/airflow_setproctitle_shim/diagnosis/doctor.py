"""Looks where macOS and Airflow write, or at what it is given, and groups the signs of deaths by cause."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from . import causes, crash_reports, signs
from .status import status

SAVE = "airflow standalone > standalone.log 2>&1\nStart it again like this, or as you do, and save what it prints."
REPORTS = (
    "Run `doctor` without a PATH, too: it reads macOS's own reports of deaths, which tell more."
)
Found = dict[str, tuple[int, signs.Sign]]  # how many signs of each cause, and the last one


class Diagnosis(NamedTuple):
    """What `doctor` tells."""

    ok: bool
    report: dict[str, Any]

    def as_json(self) -> dict[str, object]:
        """Return what `doctor --json` prints."""
        return self.report


def diagnose(named: list[str]) -> Diagnosis:
    """Return what `doctor --json` prints, of the files and directories named ("-": standard input), or else of
    the places where macOS and Airflow write."""
    shim, found = status(), Found()
    not_read, looked_at = dict[str, str](), Counter[str]()
    places = named or _places()
    for path in _files(places, not_read):
        its = Found()
        try:
            with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
                head = file.read(signs.BLOCK)
                for sign in _signs(file, head, path, looked_at):
                    its[sign.cause] = its.get(sign.cause, (0,))[0] + sign.number, sign
        except (OSError, ValueError) as error:
            not_read[path] = getattr(error, "strerror", None) or str(error)
        for cause, (count, last) in its.items():
            before, known = found.get(cause, (0, last))
            found[cause] = (
                before + count,
                max(known, last, key=lambda sign: signs.earliest(sign.time)),
            )
    since = None if named else signs.earliest(shim.installed)
    told = [_told(cause, *found[cause.name], since) for cause in causes.ALL if cause.name in found]
    deaths = [row for row in told if row["cause"] != causes.API.name]
    ok = shim.ok and not any(death["attention"] for death in deaths)
    report = {
        "ok": ok, "shim": shim.as_json(),
        "deaths": deaths, "notes": [row for row in told if row not in deaths],
        "advice": [] if deaths else [causes.FAULTHANDLER, SAVE, *[REPORTS] * bool(named)],
        "looked_at": looked_at, "missing": [path for path in places if path != "-" and not os.path.exists(path)],
        "not_read": [{"path": path, "why": why} for path, why in not_read.items()],
    }  # fmt: skip
    return Diagnosis(ok, report)


def _told(cause: causes.Cause, count: int, last: signs.Sign, since: float | None) -> dict[str, Any]:
    """Return what is to be said of one cause; `since`: when deaths begin to need attention, None if they all do."""
    name, _, value = cause.variable.partition("=")
    attention = cause in causes.CAUSES and not (value and os.environ.get(name) == value)
    if cause.prevented is not False:
        attention = since is None or signs.earliest(last.time) > since
    advice = (
        [REPORTS, *cause.helps] if since is None and cause is causes.UNKNOWN else [*cause.helps]
    )
    return {
        "cause": cause.name, "prevented": cause.prevented, "says": cause.says, "advice": advice,
        "source": cause.source, "attention": attention, "count": count,
        "last": {"place": last.place, "time": last.time, "quote": last.quote},
    }  # fmt: skip


def _places() -> list[str]:
    reports = [os.path.expanduser(f"{home}/Library/Logs/DiagnosticReports") for home in ("~", "")]
    home = os.path.expanduser(os.environ.get("AIRFLOW_HOME") or "~/airflow")
    logs = [
        path for end in ("log", "out", "err") for path in glob.glob(f"{glob.escape(home)}/*.{end}")
    ]
    return [*reports, os.path.join(home, "logs"), *sorted(logs)]


def _files(places: list[str], not_read: dict[str, str]) -> Iterator[str]:
    """Yield the files in the places that are there; note directories that cannot be read."""

    def note(error: OSError) -> None:
        not_read[os.fsdecode(error.filename)] = str(error.strerror)  # PyPy's scandir() gives bytes.

    for place in places:
        if os.path.isdir(place):
            for directory, _, names in os.walk(place, onerror=note):
                # macOS keeps reports of much else beside those of crashes.
                ends = (".ips", ".crash") if "DiagnosticReports" in directory else ("",)
                files = (
                    os.path.join(directory, name) for name in sorted(names) if name.endswith(ends)
                )
                yield from filter(os.path.isfile, files)
        elif place == "-" or os.path.exists(place):
            yield place


def _signs(
    file: BinaryIO, head: bytes, place: str, looked_at: Counter[str]
) -> Iterator[signs.Sign]:
    """Yield the signs in a file by what it holds, and count it."""
    if not (report := crash_reports.REPORT.search(head.decode("utf-8-sig", "replace"))):
        looked_at["log"] += 1
        yield from signs.read_log(file, head, place)
        return
    kind = "non-Python report"
    try:
        text = (head + file.read(crash_reports.LARGEST)).decode("utf-8-sig", "replace")
        above = io.BytesIO(text[: report.start()].encode())
        for sign in crash_reports.read_report(text, place):
            yield from signs.read_log(above, b"", place)  # once: then it is at its end
            kind = "crash report"
            yield sign
    finally:
        looked_at[kind] += 1
