"""What logs tell of deaths: how many, of which program, why, and before or since the installation."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from environments import write
from hypothesis import given
from hypothesis import strategies as st

from airflow_setproctitle_shim.diagnosis import deaths, log_file, times
from airflow_setproctitle_shim.diagnosis.finding import Finding

DATA = Path(__file__).parent / "data"
ENTRIES = [
    *json.loads((DATA / "public-lines.json").read_text("utf-8")),
    *json.loads((DATA / "typed-lines.json").read_text("utf-8")),
]
LINE = "[2025-10-05 16:49:14 +0200] [95625] [ERROR] Worker (pid:96284) was sent SIGSEGV!"
DIED_AT = datetime.datetime(2025, 10, 5, 14, 49, 14, tzinfo=datetime.timezone.utc).timestamp()
DAY = 86_400.0


@pytest.fixture(autouse=True)
def this_machines_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone that no log here is written in."""
    monkeypatch.setenv("TZ", "NST3:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(*places: Path, installed_at: float = DIED_AT) -> log_file.Logs:
    return deaths.read(places, installed_at)


def told(path: Path, text: str | bytes, installed_at: float = DIED_AT) -> log_file.Logs:
    """What a log with this text tells."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, installed_at=installed_at)


def counts(logs: log_file.Logs) -> tuple[int, int, int]:
    """Deaths before and since the installation, and undated."""
    return logs.total("before"), logs.total("since"), logs.total("undated")


def number(tallies: Sequence[log_file.Tally]) -> int:
    return sum(sum(tally.values()) for tally in tallies)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["source"] for entry in ENTRIES])
def test_a_death_counts_once_however_many_lines_tell_of_it_and_prose_does_not(
    entry: dict[str, Any], tmp_path: Path
) -> None:
    logs = told(tmp_path / "a.log", entry["text"] + "\n")
    assert number([*logs.deaths.values()]) == entry["deaths"]
    assert number([*logs.refused.values()]) == entry.get("refused", 0)


def test_a_real_airflow_2_log_has_each_told_death_by_program() -> None:
    logs = read(DATA / "logs/airflow-2.10.5.log", installed_at=0)
    assert {key: tally["since"] for key, tally in logs.deaths.items()} == {
        ("scheduler", "unknown"): 84,
        ("webserver", "unknown"): 690,
    }


def test_a_real_airflow_3_log_tells_of_no_death_and_that_is_said_with_the_way_to_see_them() -> None:
    logs = read(DATA / "logs/airflow-3.0.2-no-faulthandler.log")
    assert counts(logs) == (0, 0, 0)
    [finding] = deaths.crashes(logs, "").findings
    assert finding.severity == "note"
    assert "PYTHONFAULTHANDLER=1" in finding.remedy and "crash reports" in finding.remedy


def test_dumps_longer_than_any_window_have_the_time_of_the_last_dated_line() -> None:
    path = DATA / "logs/long-dumps.log"
    dated = datetime.datetime.fromisoformat("2026-10-23T15:47:05+00:00").timestamp()
    assert counts(read(path, installed_at=dated + 30 * DAY)) == (5, 0, 0)
    logs = read(path, installed_at=dated)
    assert counts(logs) == (0, 5, 0)
    assert list(logs.deaths) == [("scheduler", "setproctitle")]


# --- times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(-15, (0, 1, 0)), (-13, (0, 0, 1)), (0, (0, 0, 1)), (11, (0, 0, 1)), (13, (1, 0, 0))],
)
def test_a_time_without_a_zone_counts_only_where_every_zone_agrees(
    tmp_path: Path, hours: float, expected: tuple[int, int, int]
) -> None:
    written = datetime.datetime(2025, 10, 5, 14, 49, 14, tzinfo=datetime.timezone.utc).timestamp()
    line = "2025-10-05 14:49:14,000 ERROR worker (pid 1) died with SIGSEGV\n"
    assert counts(told(tmp_path / "a.log", line, installed_at=written + hours * 3600)) == expected


@pytest.mark.parametrize(
    ("installed", "side"),
    [(-14 * 3600, "since"), (-14 * 3600 + 1, "undated"), (12 * 3600, "undated"), (12 * 3600 + 1, "before")],
)
def test_the_zones_reach_from_14_hours_east_to_12_hours_west(installed: int, side: str) -> None:
    noon = times.moment(times.DATED.match(b"2025-10-05 12:00:00 x"))
    assert noon
    at = datetime.datetime(2025, 10, 5, 12, tzinfo=datetime.timezone.utc).timestamp()
    assert times.side(noon, at + installed) == side


@pytest.mark.parametrize(
    ("one", "other", "seconds"),
    [
        ("2025-10-05 12:00:00", "2025-10-05 12:00:00", 0),
        ("2025-10-05 12:00:00", "2025-10-05 12:00:05", 5),
        ("2025-10-05 12:00:00,5", "2025-10-05 12:00:05,1", 5),
        ("2025-10-05 12:00:00,5", "2025-10-05 12:00:05.1", 0),
        ("2025-10-05 12:00:00", "2025/10/05 12:00:05", 0),
        ("2025-10-05 12:00:00Z", "2025-10-05 14:00:05+0200", 5),
        ("2025-10-05 12:00:00Z", "2025-10-05 12:00:05", 0),
        ("2025-10-05 12:00:00Z", "2025-10-06 12:00:00", 10 * 3600),
        ("2025-10-05 12:00:00Z", "2025-10-04 12:00:00", 12 * 3600),
        ("Oct  5 12:00:00", "Oct  5 12:00:07", 7),
    ],
)
def test_times_are_as_far_apart_as_they_are_in_the_nearest_zones(
    one: str, other: str, seconds: float
) -> None:
    first, second = (times.moment(times.DATED.match(f"{text} x".encode())) for text in (one, other))
    assert first and second
    assert times.apart(first, second) == times.apart(second, first) == seconds


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_is_known(month: int) -> None:
    day = datetime.datetime(2025, month, 15, 12, tzinfo=datetime.timezone.utc)
    written = times.moment(times.DATED.match(f"{day:%b %d %H:%M:%S} 2025 x".encode()))
    assert written and written.latest == day.timestamp() + 12 * 3600


@pytest.mark.parametrize(("apart", "shown"), [(60, {b"-": 20700.0}), (61, {})])
def test_a_time_between_two_with_a_zone_a_minute_apart_shows_its_own(
    apart: int, shown: dict[bytes, float]
) -> None:
    lines = ["2025-10-05 12:00:00Z a", "2025-10-05 17:45:59 b", f"2025-10-05 12:01:{apart - 60:02}Z c"]
    assert times.zones("\n".join(lines).encode()) == shown
    assert times.zones("\n".join(lines[1:]).encode()) == {}


@pytest.mark.parametrize("escape", ["\x1b", "\\u001b", "#033"])
def test_colours_hide_no_death_and_no_name(tmp_path: Path, escape: str) -> None:
    line = f"{escape}[31mWorker (pid:{escape}[1m7{escape}[0m) was sent SIGSEGV!{escape}[0m\n"
    assert counts(told(tmp_path / "a.log", "all is well\n" + line)) == (0, 0, 1)
    assert counts(told(tmp_path / "a.log", line + LINE.replace("96284", "7"))) == (0, 1, 0)


def test_a_name_before_a_line_hides_no_beginning(tmp_path: Path) -> None:
    logs = told(tmp_path / "a.log", "web  | make: *** [run] Error 139\n")
    assert list(logs.deaths) == [("web", "unknown")]


@pytest.mark.parametrize("zone", ["PST8", "UTC0", "JST-9"])
def test_this_machines_zone_is_not_taken_for_that_of_a_log(tmp_path: Path, zone: str) -> None:
    line = "2025-10-05 14:49:14 [info     ] Process exited exit_code=<Negsignal.SIGSEGV: -11>\n"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            for installed_at in (DIED_AT - 600, DIED_AT + 600):
                assert counts(told(tmp_path / "a.log", line, installed_at)) == (0, 0, 1)
    finally:
        time.tzset()


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        "[2025-10-05T14:49:14.988+0000] {manager.py:280} WARNING - X (PID=1) exited with exit code -11",
        "[2025-10-05, 14:49:14 UTC] {local_task_job.py:208} INFO - Task exited with return code -11",
        '{"timestamp": "2025-10-05T14:49:14.1Z", "event": "Process exited", "exit_code": -11}',
        '{"event": "Process exited", "exit_code": -11, "pid": 3, "timestamp": "2025-10-05T14:49:14Z"}',
        "web-1  | 2025-10-05T14:49:14.123456789Z Segmentation fault (core dumped)",
        "\x1b[36mscheduler  \x1b[0m | \x1b[2m2025-10-05T10:49:14-04:00\x1b[0m Segmentation fault (core dumped)",
        "INFO:     2025-10-05 20:19:14 +0530 child died with SIGSEGV",
        "mac.local gunicorn 2025-10-05T14:49:14Z Worker (pid:7) was sent SIGSEGV!",
        "[worker-1] 2025-10-05t14:49:14z Worker (pid:7) was sent SIGSEGV!",
        "[pod/a/b] 2025-10-05 16:49:14 +0200 Worker (pid:7) was sent SIGSEGV!",
        "[05/Oct/2025:14:49:14 +0000] Worker (pid:7) was sent SIGSEGV!",
        '{"ts": 1759675754.123, "level": "error", "msg": "Worker (pid:7) was sent SIGSEGV!"}',
        '{"level": 50, "time": 1759675754123, "msg": "worker exited with code 139"}',
        '{"datetime": "2025-10-05T14:49:14Z", "msg": "Worker (pid:7) was sent SIGSEGV!"}',
    ],
)
def test_a_time_with_a_zone_is_exact(tmp_path: Path, line: str) -> None:
    assert counts(told(tmp_path / "a.log", line, installed_at=DIED_AT)) == (0, 1, 0)
    assert counts(told(tmp_path / "a.log", line, installed_at=DIED_AT + 1)) == (1, 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        "Sun Oct  5 14:49:14 2025 - DAMN ! worker 1 (pid: 1) died, killed by signal 11 :( trying respawn ...",
        "[2025-10-05 14:49:14,573: ERROR/MainProcess] Process 'W-3' pid:27 exited with 'signal 11 (SIGSEGV)'",
        "2025/10/05 14:49:14 worker stopped: signal: segmentation fault (core dumped)",
        "2025-10-05 14:49:14 Zone-3 worker died with SIGSEGV",
        "myapp.worker 2025-10-05 14:49:14,123 ERROR worker died with SIGSEGV",
        "ERROR:myapp:2025-10-05 14:49:14,123 worker died with SIGSEGV",
        "[Sun Oct 05 14:49:14.130 2025] [core:notice] AH00052: child pid 47 exit signal Segmentation fault (11)",
    ],
)
def test_a_time_without_a_zone_is_read_in_every_format(tmp_path: Path, line: str) -> None:
    assert counts(told(tmp_path / "a.log", line, installed_at=DIED_AT - DAY)) == (0, 1, 0)
    assert counts(told(tmp_path / "a.log", line, installed_at=DIED_AT + DAY)) == (1, 0, 0)
    assert counts(told(tmp_path / "a.log", line, installed_at=DIED_AT)) == (0, 0, 1)


ZONED = "[2025-10-05T{:02d}:00:0{}.011+0000] {{manager.py:1}} INFO - x\n"


@pytest.mark.parametrize("offset", [0, 2, -7])
def test_the_file_itself_may_show_the_zone_of_times_that_have_none(tmp_path: Path, offset: int) -> None:
    written = f"2025-10-05 {12 + offset:02d}:00:0{{}} [info     ] x\n"
    died = (
        f"2025-10-05 {12 + offset:02d}:00:05 [info     ] Process exited exit_code=<Negsignal.SIGSEGV: -11>\n"
    )
    text = ZONED.format(12, 1) + written.format(2) + ZONED.format(12, 3) + died
    at = datetime.datetime(2025, 10, 5, 12, 0, 5, tzinfo=datetime.timezone.utc).timestamp()
    assert counts(told(tmp_path / "a.log", text, at)) == (0, 1, 0)
    assert counts(told(tmp_path / "a.log", text, at + 1)) == (1, 0, 0)


@pytest.mark.parametrize(
    "lines",
    [
        "2025-10-05 14:00:05 [info] x\n",
        ZONED.format(12, 1) + "2025-10-05 14:00:05 [info] x\n",
        ZONED.format(12, 1) + "2025-10-05 14:00:05,000 of another format\n" + ZONED.format(12, 6),
        ZONED.format(12, 1) + "2025-10-05 14:00:05 [info] x\n" + ZONED.format(13, 1),
        (ZONED.format(12, 1) + "2025-10-05 14:00:05 [info] x\n" + ZONED.format(12, 6))
        + (ZONED.format(13, 1) + "2025-10-05 14:00:05 [info] x\n" + ZONED.format(13, 6)),
    ],
    ids=["alone", "one side", "another format", "an hour between", "the zone changes"],
)
def test_a_zone_that_the_file_does_not_show_is_not_assumed(tmp_path: Path, lines: str) -> None:
    text = lines + "2025-10-05 14:40:07 [error] worker died with SIGSEGV\n"
    at = datetime.datetime(2025, 10, 5, 12, 0, 5, tzinfo=datetime.timezone.utc).timestamp()
    assert counts(told(tmp_path / "a.log", text, at)) == (0, 0, 1)


def test_a_time_without_a_year_is_before_or_undated_never_since(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    yesterday = now - datetime.timedelta(days=1)
    line = (
        f"{yesterday:%b} {yesterday.day:2} 10:00:00 host systemd[1]: a.service: code=dumped, status=11/SEGV\n"
    )
    assert counts(told(tmp_path / "a.log", line, installed_at=now.timestamp() + 2 * DAY)) == (1, 0, 0)
    assert counts(told(tmp_path / "a.log", line, installed_at=0)) == (0, 0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "Segmentation fault: 11",
        "2025-13-45 10:00:00 died with SIGSEGV",
        "1970-01-01 00:00:01 died with SIGSEGV",
        "9999-99-99T99:99:99Z died with SIGSEGV",
        "Segmentation fault: 11\n" + LINE.replace("SIGSEGV", "SIGKILL"),
        "<TaskInstance: work.first manual__2001-01-01T00:00:00+00:00_n [scheduled]>\nSegmentation fault: 11",
    ],
)
def test_a_death_without_a_time_is_undated_whatever_the_files_time(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.log").write_text(text + "\n")
    for changed in (1.0, 4e9):
        os.utime(tmp_path / "a.log", (changed, changed))
        assert counts(read(tmp_path / "a.log")) == (0, 0, 1)


@pytest.mark.parametrize(
    "line",
    [
        "2025-10-06T10:00Z worker died with SIGSEGV",
        "20251006T100000Z worker died with SIGSEGV",
        "10/06/2025 01:00:00 PM worker died with SIGSEGV",
        "06.10.2025 10:00:00 worker died with SIGSEGV",
        "E1006 13:00:00.123000 140 api.py:869] failed (exitcode: -11) local_rank: 0 (pid: 47) of binary: python3",
        "13:00:00 Moving job to FailedJobRegistry (Work-horse terminated unexpectedly; waitpid returned 11)",
    ],
)
def test_a_line_whose_time_cannot_be_read_has_not_that_of_a_line_before_it(tmp_path: Path, line: str) -> None:
    text = f"2025-10-04T10:00:00Z starting\n{line}\n"
    assert counts(told(tmp_path / "a.log", text)) == (0, 0, 1)
    text = "2025-10-04T10:00:00Z starting\nstarted at 2025-10-06T10:00:00Z, died with SIGSEGV\n"
    assert counts(told(tmp_path / "a.log", text)) == (1, 0, 0)


@pytest.mark.parametrize("distance", [0, 10, 5_000, 70_000, 3_000_000])
@pytest.mark.parametrize("width", [60, 1_000_000])
def test_the_last_dated_line_counts_however_far_it_is(tmp_path: Path, distance: int, width: int) -> None:
    fill = ("x" * width + "\n") * (distance // width + 1) if distance else ""
    text = f"[2025-10-05 16:49:14 +0200] start\n{fill}Segmentation fault: 11\n{fill}Segmentation fault: 11\n"
    assert counts(told(tmp_path / "a.log", text)) == (0, 2, 0)
    assert counts(told(tmp_path / "a.log", text, DIED_AT + 1)) == (2, 0, 0)


def test_a_line_with_a_time_of_its_own_is_not_looked_back_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs of hundreds of megabytes hold such lines by the million."""

    class Counted:
        matches = 0

        def match(self, *arguments: Any) -> re.Match[bytes] | None:
            self.matches += 1
            return dated.match(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(dated, name)

    dated, counted = times.DATED, Counted()
    monkeypatch.setattr(times, "DATED", counted)
    text = "".join(f"undated\n{LINE.replace('96284', str(pid))}\n" for pid in range(1, 101))
    assert counts(told(tmp_path / "a.log", text)) == (0, 100, 0)
    assert counted.matches <= 101


def rows(finding: Finding) -> list[Any]:
    """The finding's counts by program and cause."""
    by = finding.data["by"]
    assert isinstance(by, list)
    return by


GUNICORN = "[2025-10-05 {} +0000] [1] [{}] {}\n"
DIES = 'Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n  File "/a.py", line 1 in f\n'
BOOTS = GUNICORN.format("11:00:00", "INFO", "Booting worker with pid: 7")
KILLED = GUNICORN.format("13:00:00", "ERROR", "Worker (pid:7) was sent SIGSEGV!")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOOTS + DIES + KILLED, (0, 1, 0)),
        (DIES + KILLED, (0, 1, 0)),
        (BOOTS + DIES * 2 + KILLED + KILLED.replace(":7", ":8"), (0, 2, 0)),
        (BOOTS + (DIES + KILLED) + (DIES + KILLED.replace("13:", "15:").replace(":7", ":9")), (0, 2, 0)),
        (BOOTS + DIES + KILLED.replace("13:", "11:"), (1, 0, 0)),
        (BOOTS + DIES + GUNICORN.format("11:00:01", "INFO", "Handling signal: winch") + KILLED, (1, 1, 0)),
        (
            BOOTS
            + "!!! uWSGI process 7 got Segmentation Fault !!!\n"
            + KILLED.replace("was sent SIGSEGV", "died, killed by signal 11"),
            (0, 1, 0),
        ),
        (BOOTS + DIES, (1, 0, 0)),
    ],
    ids=[
        "then",
        "no time before",
        "two",
        "one after the other",
        "both before",
        "told of late",
        "uWSGI",
        "never confirmed",
    ],
)
def test_the_parents_line_tells_when_a_process_died_whose_own_lines_have_no_time(
    tmp_path: Path, text: str, expected: tuple[int, int, int]
) -> None:
    noon = datetime.datetime(2025, 10, 5, 12, tzinfo=datetime.timezone.utc).timestamp()
    assert counts(told(tmp_path / "a.log", text, installed_at=noon)) == expected


def test_the_next_of_the_parents_lines_tells_when_not_a_later_one(tmp_path: Path) -> None:
    first, second = KILLED.replace("13:00:00", "11:00:05"), KILLED.replace("13:00:00", "11:00:20")
    at = datetime.datetime(2025, 10, 5, 11, 0, 10, tzinfo=datetime.timezone.utc).timestamp()
    again = second.replace("was sent SIGSEGV", "died, killed by signal 11")
    assert counts(told(tmp_path / "a.log", BOOTS + DIES + first + again, at)) == (1, 0, 0)
    another = second.replace("pid:7", "pid:8")
    assert counts(told(tmp_path / "a.log", BOOTS + DIES + first + DIES + another, at)) == (1, 1, 0)


def test_the_parents_line_tells_when_in_the_zone_that_the_file_shows(tmp_path: Path) -> None:
    line = "2025-10-05 14:00:0{} [info     ] {}\n"
    shown = ZONED.format(12, 1) + line.format(2, "x") + ZONED.format(12, 3)
    died = line.format(8, "Process exited exit_code=<Negsignal.SIGSEGV: -11>")
    at = datetime.datetime(2025, 10, 5, 12, 0, 6, tzinfo=datetime.timezone.utc).timestamp()
    assert counts(told(tmp_path / "a.log", shown + line.format(4, "x") + DIES + died, at)) == (0, 1, 0)


def test_a_process_number_that_is_given_again_later_is_another_death(tmp_path: Path) -> None:
    def killed(seconds: int) -> str:
        return GUNICORN.format(f"13:00:{seconds:02}", "ERROR", "Worker (pid:7) was sent SIGSEGV!")

    assert counts(told(tmp_path / "a.log", killed(0) + killed(2))) == (1, 0, 0)
    assert counts(told(tmp_path / "a.log", killed(0) + killed(3))) == (2, 0, 0)
    other = "WorkerLostError: Worker exited prematurely: signal 11 (SIGSEGV) Job: {}.\n"
    assert counts(told(tmp_path / "a.log", killed(0) + other.format(0) + other.format(1))) == (3, 0, 0)


def test_however_many_processes_die_each_death_counts_once(tmp_path: Path) -> None:
    lines = [
        GUNICORN.format("13:00:00", "ERROR", f"Worker (pid:{pid}) was sent SIGSEGV!") for pid in range(25_000)
    ]
    twice = [line for line in lines for _ in range(2)]
    assert counts(told(tmp_path / "a.log", "".join(twice))) == (25_000, 0, 0)
    again = "".join(lines[:12_000] + lines[2_000:12_000])  # as many as are remembered at least
    assert counts(told(tmp_path / "a.log", again)) == (12_000, 0, 0)


def test_lines_a_minute_apart_tell_of_two_deaths(tmp_path: Path) -> None:
    one = "[2025-10-05 13:00:00 +0000] Fatal Python error: Segmentation fault\n"
    for second, deaths_told in ("13:01:00", 1), ("13:01:01", 2):
        other = f"[2025-10-05 {second} +0000] Task exited with return code Negsignal.SIGSEGV\n"
        assert counts(told(tmp_path / "a.log", one + other)) == (deaths_told, 0, 0)


# --- findings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed_at", "severity", "expected"),
    [(DIED_AT, "error", (0, 1, 0)), (DIED_AT + 1, "note", (1, 0, 0))],
)
def test_only_a_dated_death_since_the_installation_is_an_error(
    tmp_path: Path, installed_at: float, severity: str, expected: tuple[int, int, int]
) -> None:
    [finding] = deaths.crashes(told(tmp_path / "a.log", LINE, installed_at), "").findings
    assert finding.severity == severity
    assert finding.data["counts"] == dict(zip(("before", "since", "undated"), expected))
    [row] = rows(finding)
    assert row["program"] == "a" and row["cause"] == "unknown" and row["first"] == f"{tmp_path / 'a.log'}:1"


@pytest.mark.parametrize("switch_on", ["", "switch it on"])
@pytest.mark.parametrize("since", [True, False], ids=["since", "before"])
def test_a_remedy_names_the_program_that_died_and_is_only_given_for_deaths_since_the_installation(
    tmp_path: Path, switch_on: str, since: bool
) -> None:
    line = "[2025-10-05 14:49:14,573: ERROR/MainProcess] Process 'W-3' pid:27 exited with 'signal 11 (SIGSEGV)'\n"
    logs = told(tmp_path / "celery.log", line, DIED_AT + (-DAY if since else DAY))
    [finding] = deaths.crashes(logs, switch_on).findings
    assert "Airflow" not in finding.remedy
    assert ("switch it on; then restart celery" in finding.remedy) is (since and bool(switch_on))
    assert finding.remedy.startswith("nothing to do") is (not since)


def test_undated_deaths_are_a_note_that_says_so(tmp_path: Path) -> None:
    [finding] = deaths.crashes(told(tmp_path / "a.log", "Segmentation fault: 11\n"), "switch it on").findings
    assert finding.severity == "note" and "1 undated" in finding.evidence
    assert finding.remedy == "tell by the lines where they stand whether they are newer than the installation"
    both = deaths.crashes(
        told(tmp_path / "a.log", f"Segmentation fault: 11\n{LINE}\n"), "switch it on"
    ).findings
    assert both[0].remedy.startswith("switch it on; then restart a; ")


DUMP = """\
scheduler  | {time} x
scheduler  | Fatal Python error: Segmentation fault
scheduler  |
scheduler  | Current thread 0x0000000203a7c840 (most recent call first):
triggerer  |   File "/py/other.py", line 1 in setproctitle
scheduler  |   File "{file}", line 53 in {function}
scheduler  |   File "/venv/lib/python3.11/site-packages/gunicorn/arbiter.py", line 609 in spawn_worker
scheduler  |
scheduler  | Extension modules: setproctitle._setproctitle, _scproxy (total: 2)
"""


@pytest.mark.parametrize(
    ("file", "function", "cause", "remedy"),
    [
        ("/sp/gunicorn/util.py", "_setproctitle", "setproctitle", "switch it on; then restart scheduler"),
        ("/sp/setproctitle/__init__.py", "<module>", "setproctitle", "switch it on; then restart scheduler"),
        (
            "/sp/celery/platforms.py",
            "set_process_title",
            "setproctitle",
            "switch it on; then restart scheduler",
        ),
        ("/sp/airflow/executors/local_executor.py", "_run_worker", "setproctitle", "switch it on"),
        ("/py/urllib/request.py", "proxy_bypass_macosx_sysconf", "_scproxy", "export NO_PROXY='*'"),
        ("/py/urllib/request.py", "getproxies_macosx_sysconf", "_scproxy", "export NO_PROXY='*'"),
        ("/py/socket.py", "getaddrinfo", "DNS/Network/Security", "spawn or exec"),
        ("/sp/psycopg2/__init__.py", "connect", "libpq's GSS", "export PGGSSENCMODE=disable"),
        ("/sp/numpy/core.py", "dot", "unknown", "crash reports"),
    ],
)
def test_a_dump_is_attributed_by_its_first_frames_and_answered_accordingly(
    tmp_path: Path, file: str, function: str, cause: str, remedy: str
) -> None:
    text = DUMP.format(time="[2025-10-05 16:49:14 +0200]", file=file, function=function)
    [finding] = deaths.crashes(told(tmp_path / "a.log", text), "switch it on").findings
    [row] = rows(finding)
    assert (row["program"], row["cause"], row["since"]) == ("scheduler", cause, 1)
    assert remedy in finding.remedy
    assert ("restart" in finding.remedy) is (cause in ("setproctitle", "unknown"))
    assert "pip install" not in finding.remedy


def test_a_dump_that_does_not_tell_which_of_its_threads_died_is_unknown(tmp_path: Path) -> None:
    text = DUMP.format(time="[2025-10-05 16:49:14 +0200]", file="/py/socket.py", function="getaddrinfo")
    one = text.replace("Current thread", "Thread")
    many = one.replace(
        "scheduler  | Ext", "scheduler  | Thread 0x1 (most recent call first):\nscheduler  | Ext"
    )
    for log, cause in (one, "DNS/Network/Security"), (many, "unknown"):
        [finding] = deaths.crashes(told(tmp_path / "a.log", log), "").findings
        assert rows(finding)[0]["cause"] == cause


def test_the_first_death_of_each_program_is_named_by_its_line(tmp_path: Path) -> None:
    filler = "web | all is well\n" * 70_000  # more than a block
    text = f"{filler}web | {LINE}\n{filler}web | {LINE.replace('96284', '1')}\nbeat | {LINE}\n{filler}cron | {LINE}"
    [finding] = deaths.crashes(told(tmp_path / "a.log", text), "").findings
    assert {row["program"]: (row["first"], row["since"]) for row in rows(finding)} == {
        "web": (f"{tmp_path}/a.log:70001", 2),
        "beat": (f"{tmp_path}/a.log:140003", 1),
        "cron": (f"{tmp_path}/a.log:210004", 1),
    }


def test_a_dump_far_down_in_a_log_has_its_cause(tmp_path: Path) -> None:
    dump = DUMP.format(time="[2025-10-05 16:49:14 +0200]", file="/py/socket.py", function="getaddrinfo")
    text = "all is well\n" * 300_000 + dump
    assert list(told(tmp_path / "a.log", text).deaths) == [("scheduler", "DNS/Network/Security")]


@pytest.mark.parametrize(
    ("deep", "cause"), [(7, "DNS/Network/Security"), (8, "unknown")], ids=["eighth frame", "ninth frame"]
)
def test_a_dumps_first_eight_frames_count(tmp_path: Path, deep: int, cause: str) -> None:
    frames = ['  File "/a.py", line 1 in f'] * deep + ['  File "/py/socket.py", line 1 in getaddrinfo', ""]
    text = DIES.partition("  File")[0] + "\n".join(frames)
    assert list(told(tmp_path / "a.log", text).deaths) == [("a", cause)]


@pytest.mark.parametrize(("between", "deaths_told"), [(100, 1), (200, 2)])
def test_only_a_process_number_near_the_words_names_who_died(
    tmp_path: Path, between: int, deaths_told: int
) -> None:
    line = f"[2025-10-05 16:49:14 +0200] code=dumped, status=11/SEGV {'x' * between} pid: 7\n"
    assert counts(told(tmp_path / "a.log", line * 2)) == (0, deaths_told, 0)


def test_objective_cs_abort_has_its_cause_and_remedy(tmp_path: Path) -> None:
    text = "objc[7]: +[NSNumber initialize] may have been in progress in another thread when fork() was called.\n"
    logs = told(tmp_path / "a.log", f"[2025-10-05 16:49:14 +0200] x\n{text}")
    assert list(logs.deaths) == [("a", "Objective-C +initialize")]
    [finding] = deaths.crashes(logs, "").findings
    assert "OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES" in finding.remedy


def test_what_follows_a_dump_is_not_its(tmp_path: Path) -> None:
    another = DIES.replace("/a.py", "/py/socket.py").replace(" in f", " in getaddrinfo")
    causes = [("a", "unknown"), ("a", "DNS/Network/Security")]
    assert list(told(tmp_path / "a.log", DIES + another).deaths) == causes
    asked_for = another.partition("\n\n")[2]  # as faulthandler.dump_traceback() writes it
    assert list(told(tmp_path / "a.log", f"{DIES}\nExtension modules: x\n{asked_for}").deaths) == causes[:1]


def test_a_dumps_other_threads_do_not_count(tmp_path: Path) -> None:
    thread = 'Thread 0x2 (most recent call first):\n  File "/py/socket.py", line 1 in getaddrinfo\n'
    text = "Fatal Python error: Segmentation fault\n\n" + thread + DIES.partition("\n\n")[2] + thread
    assert list(told(tmp_path / "a.log", text).deaths) == [("a", "unknown")]
    other = text.replace("/py/socket.py", "/a.py").replace("in getaddrinfo", "in g")
    one = other.replace('/a.py", line 1 in f', '/py/socket.py", line 1 in getaddrinfo')
    assert list(told(tmp_path / "a.log", one).deaths) == [("a", "DNS/Network/Security")]


@pytest.mark.parametrize("since", [0, 1, 2])
def test_a_finding_says_how_many_and_what_to_do(tmp_path: Path, since: int) -> None:
    for number_of, program in enumerate(("web", "beat")[:since]):
        (tmp_path / f"{program}.log").write_text(LINE.replace("96284", str(number_of)) + "\n")
    (tmp_path / "old.log").write_text(LINE.replace("2025", "2024"))
    [finding] = deaths.crashes(read(tmp_path), "switch it on").findings
    assert finding.evidence == (
        f"{since} death{'s' * (since != 1)} by SIGSEGV or Objective-C's abort since the shim was installed,"
        " 1 before, 0 undated"
    )
    watch = f"to see the cause, {deaths.WATCH}"
    assert (
        finding.remedy
        == {
            0: "nothing to do: none is newer than the installation",
            1: f"switch it on; then restart web; {watch}",
            2: f"switch it on; then restart beat, web; {watch}",
        }[since]
    )


def test_where_the_shim_is_on_only_what_setproctitle_killed_is_to_be_restarted(tmp_path: Path) -> None:
    (tmp_path / "web.log").write_text(LINE)
    [finding] = deaths.crashes(read(tmp_path), "").findings
    assert finding.remedy == f"to see the cause, {deaths.WATCH}"
    dump = DUMP.format(time="[2025-10-05 16:49:14 +0200]", file="/gunicorn/util.py", function="_setproctitle")
    (tmp_path / "web.log").write_text(dump)
    [finding] = deaths.crashes(read(tmp_path), "").findings
    assert finding.remedy == "restart what may run since before the installation: scheduler"


def test_faulthandlers_dumps_of_airflow_3_need_no_advice(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("scheduler  | x\napi-server | x\n")
    (tmp_path / "b.log").write_text("all is well\n")
    [finding] = deaths.crashes(read(tmp_path), "").findings
    assert finding.evidence.startswith("Airflow 3 logs no death of its workers unless faulthandler is on")
    (tmp_path / "c.log").write_text(DIES)
    [finding] = deaths.crashes(read(tmp_path), "").findings
    assert finding.evidence.startswith("0 deaths by SIGSEGV")


# --- what was read -----------------------------------------------------------------------------


def test_what_was_read_and_what_was_not_is_told(tmp_path: Path) -> None:
    (tmp_path / "scheduler/2025").mkdir(parents=True)
    (tmp_path / "scheduler/2025/work.log").write_text(LINE + "\n")
    (tmp_path / "quiet.log").write_text("[2025-10-01 00:00:00 +0000] all is well\n" * 5)
    (tmp_path / "latest.log").symlink_to("quiet.log")
    (tmp_path / "old.log.1.gz").write_bytes(gzip.compress(LINE.encode()))
    (tmp_path / "binary.db").write_bytes(b"SQLite\0" + LINE.encode())
    (tmp_path / "empty.log").touch()
    os.mkfifo(tmp_path / "pipe.log")
    logs = read(tmp_path, tmp_path / "missing")
    assert {str(r.path.relative_to(tmp_path)): (r.bytes, bool(r.skipped)) for r in logs.read} == {
        "scheduler/2025/work.log": (len(LINE) + 1, False),
        "quiet.log": (200, False),
        "latest.log": (0, True),
        "old.log.1.gz": (0, True),
        "binary.db": (0, True),
        "empty.log": (0, False),
        "pipe.log": (0, True),
        "missing": (0, True),
    }
    answer = deaths.crashes(logs, "")
    assert answer.read == logs.read
    assert answer.looked_at.startswith("read 3 logs, 0.0 MB, 2025-10-01 to 2025-10-05; 1 .gz not read")
    assert list(logs.deaths) == [("scheduler", "unknown")]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip", ".Z", ".lz4", ".7z"])
def test_a_packed_log_is_named_as_not_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.log{suffix}").write_text(LINE)
    (tmp_path / "b.log").write_text(LINE)
    assert (
        deaths.looked_at(read(tmp_path))
        == f"read 1 log, 0.0 MB, 2025-10-05 to 2025-10-05; 1 {suffix} not read"
    )


def test_why_something_was_not_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"\0")
    scan = os.scandir

    def refuse(path: str) -> Any:
        if path == str(tmp_path / "a"):  # Tests may run as root, whom no permission stops.
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    skipped = {(file.path.name, file.bytes, file.skipped) for file in read(tmp_path).read}
    assert skipped == {("a", 0, "Permission denied"), ("b", 0, "not text")}


def test_the_span_of_times_is_in_utc(tmp_path: Path) -> None:
    text = (
        "[2025-10-04 01:00:00 +0000] a\nall is well\n[2025-10-05 01:00:00 +0200] b\n2025-10-06 23:30:00 c\n"
    )
    logs = told(tmp_path / "a.log", text)
    assert deaths.looked_at(logs) == "read 1 log, 0.0 MB, 2025-10-04 to 2025-10-06"


def test_seconds_since_the_epoch_are_in_utc(tmp_path: Path) -> None:
    logs = told(tmp_path / "a.log", '{"ts": 1759546800.5, "msg": "Worker (pid:7) was sent SIGSEGV!"}\n')
    assert deaths.looked_at(logs) == "read 1 log, 0.0 MB, 2025-10-04 to 2025-10-04"


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("Main process exited, code=dumped, status=11/SEGV", "a"),
        ("celery-worker.service: Main process exited, code=dumped, status=11/SEGV", "celery-worker"),
        ("service exited due to SIGSEGV | sent by exc handler[1]", "a"),
        ("zsh: segmentation fault  airflow standalone", "a"),
    ],
)
def test_a_program_is_named_by_the_line_or_else_by_the_file(tmp_path: Path, line: str, program: str) -> None:
    assert list(told(tmp_path / "a.log", f"{line}\n").deaths) == [(program, "unknown")]


@pytest.mark.parametrize("before", ["[2025-10-05 11:00:00 +0000] ", '{"event": "'])
def test_in_what_a_logger_wrote_words_of_source_code_hide_nothing(tmp_path: Path, before: str) -> None:
    line = "gunicorn says: 'Worker (pid:7) was sent SIGSEGV!'"
    assert number([*told(tmp_path / "a.log", before + line + "\n").deaths.values()]) == 1
    assert number([*told(tmp_path / "a.log", line + "\n").deaths.values()]) == 0


def test_a_dumps_frames_may_hold_any_bytes(tmp_path: Path) -> None:
    text = DIES.encode().replace(b"/a.py", b"/caf\xe9.py")
    assert list(told(tmp_path / "a.log", text).deaths) == [("a", "unknown")]


def test_programs_are_named_by_their_directory_or_else_their_file(tmp_path: Path) -> None:
    for name in ("top.log", "web/x.log", "beat/deep/down/x.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(LINE)
    assert sorted(program for program, _ in read(tmp_path).deaths) == ["beat", "top", "web"]


def test_a_log_that_lies_in_two_places_is_read_once(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write(tmp_path / place / "x.log", LINE + "\n")
    logs = read(tmp_path / "a", tmp_path / "a/x.log", tmp_path / "b", tmp_path)
    assert counts(logs) == (0, 2, 0)
    assert [file.path.parent.name for file in logs.read] == ["a", "b"]


@pytest.mark.parametrize("packed", [False, True])
def test_where_no_log_was_found_that_is_said(tmp_path: Path, packed: bool) -> None:
    if packed:
        (tmp_path / "a.log.gz").write_bytes(b"x")
    [finding] = deaths.crashes(read(tmp_path), "").findings
    assert finding.severity == "note"
    assert "no log" in finding.evidence and "crash reports" in finding.remedy
    assert (".gz" in finding.evidence) is packed


def test_a_log_that_may_not_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.log").write_text(LINE + "\n")
    opened = Path.open

    def refuse_a(path: Path, *args: Any, **more: Any) -> Any:
        if path.stem == "a":  # Tests may run as root, whom no permission stops.
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **more)

    monkeypatch.setattr(Path, "open", refuse_a)
    logs = read(tmp_path)
    assert [r.skipped for r in logs.read] == ["Permission denied", ""]
    assert counts(logs) == (0, 1, 0)


# --- robust ------------------------------------------------------------------------------------

TEXTS = [entry["text"].encode() for entry in ENTRIES]
PIECES = st.one_of(
    st.sampled_from(
        [
            *TEXTS,
            b"SIGSEGV",
            b"signal 11",
            b"=-11",
            b" 139",
            b"\x1b[31m",
            b"[2025-10-05 16:49:14 +0200] ",
            b"\n",
            b"a | ",
            b'{"time": "',
        ]
    ),
    st.binary(max_size=40),
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.floats(allow_nan=False))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, text: bytes, installed_at: float) -> None:
    logs = told(tmp_path_factory.getbasetemp() / "any.log", text, installed_at)
    deaths.crashes(logs, "")


def test_what_is_written_while_it_is_read_is_left_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "BLOCK", 64)
    stat = os.fstat

    def earlier(descriptor: int) -> Any:
        return types.SimpleNamespace(st_size=stat(descriptor).st_size - 495)

    monkeypatch.setattr(os, "fstat", earlier)
    [file] = told(tmp_path / "a.log", "123456789\n" * 100).read
    assert file.bytes == 505


@given(st.integers(0, 400), st.sampled_from([e for e in ENTRIES if e["deaths"] or e.get("refused")]))
def test_where_a_block_ends_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, offset: int, entry: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks.log"
    text = b"x" * 78 + b"\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_file, "BLOCK", 997)
        logs = told(path, text * 12 + b"y" * offset + b"\n" + entry["text"].encode() + b"\n" + text * 12)
    assert number([*logs.deaths.values()]) == entry["deaths"]
    assert number([*logs.refused.values()]) == entry.get("refused", 0)


@pytest.mark.parametrize("before", [0, 2**20 - 10, 2**20 + 2**16 - 40, 2**20 + 2**16 - 1024, 3 * 2**20 + 77])
def test_a_line_of_any_length_tells_its_deaths_once(tmp_path: Path, before: int) -> None:
    text = (
        "[2025-10-05 16:49:14 +0200] " + "x" * before + " Worker (pid:1) was sent SIGSEGV!" + "y" * 3_000_000
    )
    assert counts(told(tmp_path / "a.log", text)) == (0, 1, 0)


HARD = [
    "Segmentation fault" + " " * 60_000 + "x",
    "a" + " " * 60_000 + "SIGSEGV",
    "- " * 30_000 + "SIGSEGV",
    '{"' * 30_000 + "SIGSEGV",
    "exited " * 9_000 + "SIGSEGV",
    "signal 11 " * 6_000,
    "<Process(" * 6_000 + "SIGSEGV",
    "Process exited " * 4_000 + "exit_code" + " " * 9_000 + "SIGSEGV",
    "10:00:00 " * 7_000 + "SIGSEGV",
    "a.service: " * 6_000 + "code= SEGV",
    "a.b[1]): " * 6_000 + "exited due to SEGV",
]


def test_lines_that_are_hard_to_match_do_not_stop_the_reading(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\n".join([*HARD, LINE, ""]))
    program = (
        "import sys, pathlib; from airflow_setproctitle_shim.diagnosis import deaths;"
        "print(deaths.read([pathlib.Path(sys.argv[1])], 0).total('since'))"
    )
    # It takes under a second; a pattern that takes the square of the line's length takes minutes.
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60, stdout=subprocess.PIPE
    )
    assert done.stdout == b"1\n"
