"""`doctor` tells what died and what helps, of what people have at hand: crash reports, their text, and logs."""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_setproctitle_shim.diagnosis import cli, doctor, status

DATA = Path(__file__).parent / "data"
CASES = [
    pytest.param(case, inputs, id=f"{case.parent.name}-{number}")
    for case in sorted(DATA.glob("cases/*/case.json"))
    for number, inputs in enumerate(json.loads(case.read_text())["inputs"])
]
STATUS = functools.cache(status.status)
REPORTS = {
    "Python-2023-notforked-keychain": "not fork",
    "python3.12-airflow45124": "setproctitle",
    "python3.12-airflow64874-getaddrinfo": "network",
    "python3.12-celery869-sqlite": "libdispatch",
    "python3.12-cpython102525": "unknown",
    "python3.12-kalite2844": "_scproxy",
    "python3.12-rubypg631-psycopg-gss-segv": "libpq",
}


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No remedy is set here already, and the default places are empty. The shim's status is asked for once."""
    monkeypatch.setattr(doctor, "status", STATUS)
    for variable in ("NO_PROXY", "PGGSSENCMODE", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))


class Doctor:
    """Runs the command in this process, and keeps what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.status = cli.main(["doctor", "--json", *map(str, arguments)])
        self.data: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert cli.main(["doctor", *map(str, arguments)]) == self.status
        self.text = capsys.readouterr().out
        self.deaths = {death["cause"]: death for death in self.data["deaths"]}
        self.counts = {cause: death["count"] for cause, death in self.deaths.items()}


@pytest.mark.parametrize(("case", "inputs"), CASES)
def test_what_people_brought_has_the_cause_that_was_found_and_what_helped(
    case: Path,
    inputs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth = json.loads(case.read_text())
    monkeypatch.chdir(case.parent)
    told = Doctor(capsys, *inputs)
    assert set(told.deaths) <= {*truth["causes"], "unknown"}
    assert bool(set(told.deaths) & set(truth["causes"])) is bool(truth["causes"])
    assert bool(told.deaths) is bool(truth["causes"])
    for cause in set(told.deaths) & set(truth["causes"]):
        for words in truth["advice has"]:
            assert words in " ".join(told.deaths[cause]["advice"])
            assert words in told.text
    assert told.status == int(bool(truth["causes"]))
    assert max(map(len, told.text.splitlines())) <= 80
    assert not re.search(r"(?i)nothing (needs|to do|is to be done)", told.text)


def as_text(ips: Path, layout: str) -> str:
    """The text that macOS's window shows for a report: new, or old as in macOS 10.14 to 11."""
    header, body = (json.loads(part) for part in ips.read_text().split("\n", 1))
    old, images = layout == "old", [image["name"] for image in body["usedImages"]]
    names = (
        {"CoreFoundation": "com.apple.CoreFoundation", "Security": "com.apple.security"}
        if old
        else {}
    )
    notes = "\n".join(note for notes in body["asi"].values() for note in notes)
    frames = [
        f"{number:<3} {names.get(images[frame['imageIndex']], images[frame['imageIndex']]):30}\t"
        f"{'0x00007fff5d8d0b66' if old else '       0x190001000'} {frame.get('symbol') or '0x10a0b2000'} + {number}"
        for number, frame in enumerate(body["threads"][body["faultingThread"]]["frames"])
    ]
    return f"""\
{"" if old else "-------------------------------------"}
Process:               {header["app_name"]} [51654]
Path:                  /Users/USER/*/{header["app_name"]}
Identifier:            {header["app_name"]}

Date/Time:             {body["captureTime"]}

Crashed Thread:        1  Dispatch queue: com.apple.main-thread

Exception Type:        EXC_BAD_ACCESS (SIGSEGV)
Termination Reason:    Namespace SIGNAL, Code {"0xb" if old else "11 Segmentation fault: 11"}

Application Specific Information:
{notes}

Thread 0:: com.apple.other
0   _setproctitle.decoy           \t       0x190001000 decoy + 1

Thread 1 Crashed:: Dispatch queue: com.apple.main-thread
{chr(10).join(frames)}

Binary Images:
       0x10498c000 -        0x1049affff {header["app_name"]} (*) <abc> /Users/USER/*/{header["app_name"]}
"""


FORMS: dict[str, Callable[[Path], str]] = {
    "file": lambda ips: ips.read_text(),
    "old text": lambda ips: as_text(ips, "old"),
    "new text": lambda ips: as_text(ips, "new"),
    "text with the JSON below": lambda ips: (
        as_text(ips, "new") + "\n-----------\nFull Report\n-----------\n\n" + ips.read_text()
    ),
    "in Markdown": lambda ips: (
        f"It crashed:\n\n```{as_text(ips, 'new').lstrip('-').lstrip()}```\nWhy?\n"
    ),
    "with a web page's blanks": lambda ips: as_text(ips, "new").replace("  ", "\xa0 "),
    "of PyPy": lambda ips: ips.read_text().replace("ython", "yPy"),
    "in an e-mail": lambda ips: "".join(
        f"> {line}\r\n" for line in as_text(ips, "old").splitlines()
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", REPORTS)
def test_a_crash_report_tells_its_cause_in_each_form_that_people_have(
    name: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "what I copied"
    file.write_bytes(FORMS[form](DATA / f"crash-reports/{name}.ips").encode())
    told = Doctor(capsys, file)
    assert told.counts == {REPORTS[name]: 1}
    assert told.data["looked_at"] == {"crash report": 1} and not told.data["not_read"]
    last = told.deaths[REPORTS[name]]["last"]
    assert (last["place"], last["time"]) == (str(file), "2025-01-07 15:12:30.1013 +0000")
    assert told.status == int(REPORTS[name] != "not fork")


def test_standard_input_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = as_text(DATA / "crash-reports/python3.12-kalite2844.ips", "new")
    for options in ([], ["--json"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert cli.main(["doctor", *options, "-"]) == 1
        assert "_scproxy" in capsys.readouterr().out


@pytest.mark.parametrize("part", range(5, 100, 6))
@pytest.mark.parametrize("name", REPORTS)
def test_a_crash_report_that_is_cut_off_is_named_and_tells_what_it_can(
    name: str, part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (DATA / f"crash-reports/{name}.ips").read_bytes()
    (tmp_path / "a.ips").write_bytes(whole[: len(whole) * part // 100])
    told = Doctor(capsys, tmp_path)
    [not_read] = told.data["not_read"]
    assert not_read["path"] == str(tmp_path / "a.ips") and not_read["why"] in told.text
    # The images, which would tell libdispatch, come last; and "not fork" is said of whole reports only.
    certain = REPORTS[name] if REPORTS[name] not in ("libdispatch", "unknown", "not fork") else None
    assert len(told.counts) == 1 and set(told.counts) <= {"unknown", certain}
    assert part < 80 or certain in (None, *told.counts)


def logged(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> Doctor:
    (tmp_path / "a.log").write_text(text)
    return Doctor(capsys, tmp_path / "a.log")


@pytest.mark.parametrize(
    ("name", "counts", "lines"),
    [
        ("logs/airflow-2.10.5", {"unknown": 774}, {1182}),
        ("logs/airflow-3.0.2-no-faulthandler", {}, set()),
        ("logs/long-dumps", {"setproctitle": 5}, {94}),
        ("lines/lldb", {"objective-c": 2, "_scproxy": 2, "unknown": 1}, {2, 12, 28}),
    ],
)
def test_logs_are_counted_and_the_last_line_is_quoted_with_its_place(
    name: str, counts: dict[str, int], lines: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    log = DATA / f"{name}.log"
    told = Doctor(capsys, log)
    assert told.counts == counts
    for death in told.data["deaths"]:
        place, _, number = death["last"]["place"].rpartition(":")
        assert place == str(log) and int(number) in lines
        assert death["last"]["quote"] == log.read_text().splitlines()[int(number) - 1].strip()
    assert ("export PYTHONFAULTHANDLER=1" in " ".join(told.data["advice"])) is (not counts)
    assert "export PYTHONFAULTHANDLER=1" in told.text or "long" in name


DEATHS = (DATA / "lines/deaths.txt").read_text().splitlines()
NO_DEATHS = (DATA / "lines/no-deaths.txt").read_text().splitlines()


@pytest.mark.parametrize("line", DEATHS)
def test_a_line_that_names_a_death_is_one_sign(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = logged(tmp_path, capsys, f"before\n2026-11-27 10:00:00 {line}\nafter\n")
    assert told.counts == {"unknown": 1}
    assert told.deaths["unknown"]["last"] == {
        "place": f"{tmp_path}/a.log:2",
        "time": "2026-11-27 10:00:00",
        "quote": f"2026-11-27 10:00:00 {line}",
    }


def test_numbers_that_name_no_death_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in NO_DEATHS:
        assert logged(tmp_path, capsys, f"{line}\n").counts == {}, line
    assert logged(tmp_path, capsys, "".join(f"{line}\n" for line in NO_DEATHS)).status == 0


OBJC = "objc[3861]: +[NSString initialize] may have been in progress in another thread when fork() was called."
CORE = "The process has forked and you cannot use this CoreFoundation functionality safely. You MUST exec()."


def test_known_causes_come_first_and_the_list_to_try_stands_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = logged(tmp_path, capsys, f"{OBJC}\n{CORE}\n{OBJC}\n{DEATHS[0]}\n")
    assert told.counts == {"objective-c": 2, "corefoundation": 1, "unknown": 1}
    assert list(told.counts) == ["objective-c", "corefoundation", "unknown"]
    assert told.text.count("OBJC_DISABLE_INITIALIZE_FORK_SAFETY") == 1
    assert told.text.index("objective-c") < told.text.index("not why")


SITE = "/Users/u/.venv/lib/python3.12/site-packages"
FRAMES = {
    "setproctitle": [
        f'  File "{SITE}/setproctitle/__init__.py", line 57 in <module>\n  File "a.py", line 1 in f',
        f'  File "{SITE}/rq/worker.py", line 400 in procline\n  File "{SITE}/rq/worker.py", line 9 in work',
        f'  File "{SITE}/airflow/executors/local_executor.py", line 70 in _run_worker',
        f'  File "{SITE}/django_q/worker.py", line 54 in worker',
    ],
    "_scproxy": [
        '  File "/x/urllib/", line 2631 in proxy_bypass_macosx_sysconf\n  File "/x/requests/", line 8 in get',
        f'  File "/x/urllib/request.py", line 9 in getproxies_macosx_sysconf\n  File "{SITE}/gunicorn/util.py", line 4 in _setproctitle',
    ],
    "libpq": [
        f'  File "{SITE}/psycopg2/__init__.py", line 122 in connect\n  File "db.py", line 1 in f'
    ],
    "network": [
        '  File "/x/lib/python3.12/socket.py", line 978 in getaddrinfo\n  File "x.py", line 1 in f'
    ],
    "unknown": [
        # It returned from there long ago.
        f'  File "x.py", line 1 in crash\n  File "{SITE}/gunicorn/util.py", line 4 in load_class'
    ],
}
BEHIND = {
    "plain": lambda line: line,
    "behind a program's name": lambda line: f"\x1b[33mscheduler \x1b[0m | {line}",
    "in colours": lambda line: f"\x1b[31m{line}\x1b[0m",
    "in JSON lines": lambda line: json.dumps(
        {"event": line, "level": "error", "logger": "task.stderr"}
    ),
}


@pytest.mark.parametrize("behind", [*BEHIND, "in one line of JSON"])
@pytest.mark.parametrize(
    ("cause", "frames"), [(cause, one) for cause, many in FRAMES.items() for one in many]
)
def test_a_dumps_innermost_known_frame_tells_the_cause(
    cause: str, frames: str, behind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = f"""Fatal Python error: Segmentation fault

Thread 0x000000016b (most recent call first):
  File "{SITE}/setproctitle/__init__.py", line 9 in setproctitle

Current thread 0x00000001fb058f40 (most recent call first):
{frames}

Extension modules: setproctitle._setproctitle (total: 1)"""
    lines = [*map(BEHIND.get(behind, str), dump.splitlines())]
    text = json.dumps({"event": dump}) if behind not in BEHIND else "\n".join(lines)
    assert logged(tmp_path, capsys, f"{text}\nordinary\n" * 2).counts == {cause: 2}


def test_a_dump_and_lines_are_told_wherever_they_lie_in_a_large_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = f"Fatal Python error: Segmentation fault\n\nCurrent thread 0x1f (most recent call first):\n{FRAMES['libpq'][0]}\n"
    ordinary = "2026-11-27T10:00:00Z all is well\n"
    lines = 0
    with (tmp_path / "a.log").open("w") as file:
        for number in range(
            60
        ):  # more than one for each block that is read, never at the same place
            file.write(ordinary * (1700 + number) + dump + f"{DEATHS[0]}\n")
            lines += 1700 + number + 6
    told = Doctor(capsys, tmp_path)
    assert told.counts == {"libpq": 60, "unknown": 60}
    assert told.deaths["unknown"]["last"]["place"] == f"{tmp_path}/a.log:{lines}"
    assert told.deaths["unknown"]["last"]["time"] == "2026-11-27T10:00:00Z"


def test_what_doctor_prints_is_no_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Doctor(
        capsys, *DATA.glob("cases/*/*.log"), *DATA.glob("crash-reports/*"), *DATA.glob("logs/*")
    )
    assert len(told.counts) > 5
    for text in (told.text, json.dumps(told.data, indent=2), told.text.replace("\n", "\n> ")):
        assert logged(tmp_path, capsys, text).counts == {}
    assert logged(tmp_path, capsys, f" | {DEATHS[0]}\n").counts == {
        "unknown": 1
    }  # another program's bar


def test_that_airflows_api_refused_workers_is_a_note_and_no_death(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in ("", "http://localhost:8080"):  # the server's line, and the worker's
        line = f'"PATCH {address}/execution/task-instances/0193/run HTTP/1.1" 401 Unauthorized\n'
        told = logged(tmp_path, capsys, line)
        assert told.status == 0 and not told.counts and "AIRFLOW__API_AUTH__JWT_SECRET" in told.text


def test_what_cannot_be_read_is_named_and_the_rest_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log.gz").write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\3")
    (tmp_path / "b.log").write_bytes(b"caf\xe9 \xff\n" + DEATHS[0].encode())
    told = Doctor(capsys, tmp_path)
    assert told.counts == {"unknown": 1} and "a.log.gz" in told.text


@pytest.fixture
def airflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AIRFLOW_HOME with its logs; the shim was installed at 12 o'clock."""
    installed = STATUS()._replace(installed="2026-11-22 12:00:00 +0000")
    monkeypatch.setattr(doctor, "status", lambda: installed)
    (tmp_path / "airflow/logs/dag").mkdir(parents=True)
    return tmp_path / "airflow"


@pytest.mark.parametrize(
    ("time", "attention"),
    [
        ("2026-11-22 11:59:59 +0000", False),
        ("2026-11-22T12:00:01Z", True),
        ("2026-11-22 13:30:00 +0200", False),
        ("2026-11-23 02:00:01", True),
        ("12:30:00", False),
    ],
)
def test_a_bare_death_needs_attention_if_it_is_known_to_be_newer_than_the_installation(
    time: str, attention: bool, airflow_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (airflow_home / "logs/dag/task.log").write_text(f"[{time}] started\n{DEATHS[0]}\n")
    told = Doctor(capsys)
    assert told.deaths["unknown"]["attention"] is attention is bool(told.status)
    assert "PYTHONFAULTHANDLER" in told.text and "2026-11-22 12:00:00 +0000" in told.text


def test_other_causes_need_attention_until_their_variable_is_set(
    airflow_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (airflow_home / "standalone.err").write_text(f"2020-01-01 10:00:00Z\n{OBJC}\n")
    assert Doctor(capsys).status == 1
    monkeypatch.setenv("OBJC_DISABLE_INITIALIZE_FORK_SAFETY", "YES")
    told = Doctor(capsys)
    assert told.status == 0 and told.deaths["objective-c"]["advice"]


def test_the_default_places_are_macoss_and_airflows(
    airflow_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "home/Library/Logs/DiagnosticReports"
    (reports / "Retired").mkdir(parents=True)
    ips = (DATA / "crash-reports/python3.12-kalite2844.ips").read_bytes()
    (reports / "Python-1.ips").write_bytes(ips)
    (reports / "Retired/Python-2.ips").write_bytes(ips)
    (reports / "shutdown.log").write_text(DEATHS[0])
    for name in ("scheduler.log", "a.out", "a.err", "airflow.cfg", "logs/dag/task.log"):
        (airflow_home / name).write_text(f"2026-11-22 12:30:00Z {DEATHS[0]}\n")
    told = Doctor(capsys)
    assert told.counts == {"_scproxy": 2, "unknown": 4}
    assert told.data["looked_at"] == {"crash report": 2, "log": 4}
    assert doctor.REPORTS not in told.deaths["unknown"]["advice"]
    assert doctor.REPORTS in Doctor(capsys, airflow_home / "a.err").deaths["unknown"]["advice"]
