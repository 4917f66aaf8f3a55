"""`doctor` tells what died and what helps, of what people have at hand: crash reports, their text, and logs."""

from __future__ import annotations

import codecs
import functools
import gzip
import io
import json
import os
import random
import re
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_setproctitle_shim.diagnosis import (
    advice,
    causes,
    cli,
    crash_reports,
    doctor,
    inputs,
    status,
)
from airflow_setproctitle_shim.diagnosis.crash_reports import Json
from airflow_setproctitle_shim.diagnosis.environment import COMMAND

DATA = Path(__file__).parent / "data"
CASES = [
    (case, inputs)
    for case in sorted(DATA.glob("cases/*/case.json"))
    for inputs in json.loads(case.read_text("utf-8"))["inputs"]
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
VARIABLES = re.compile(r"(?i)\w+_proxy|PGGSSENCMODE|OBJC_\w+|VECLIB_\w+|OMP_\w+")


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No remedy is set here already, and the default places are empty. The shim's status is asked for once."""
    monkeypatch.setattr(doctor, "status", STATUS)
    for variable in filter(VARIABLES.fullmatch, list(os.environ)):
        monkeypatch.delenv(variable)
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
        self.not_read = {Path(file["path"]).name: file["why"] for file in self.data["not_read"]}


def logged(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> Doctor:
    (tmp_path / "a.log").write_text(text, "utf-8")
    return Doctor(capsys, tmp_path / "a.log")


# --- what people brought


@pytest.mark.parametrize(
    ("case", "inputs"),
    CASES,
    ids=[f"{case.parent.name}-{'+'.join(names)}" for case, names in CASES],
)
def test_what_people_brought_has_the_cause_that_was_found_and_what_helped(
    case: Path,
    inputs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth = json.loads(case.read_text("utf-8"))
    monkeypatch.chdir(case.parent)
    told = Doctor(capsys, *inputs)
    assert set(told.deaths) <= {*truth["causes"], "unknown"}
    assert bool(set(told.deaths) & set(truth["causes"])) is bool(truth["causes"])
    assert bool(told.deaths) is bool(truth["causes"])
    advice = [line for cause in told.deaths.values() for line in cause["advice"]]
    for words in truth["advice has"] if told.deaths else ():
        assert words in " ".join(advice) and words in told.text
    assert all(cause["source"] in told.text for cause in told.deaths.values())
    for words in truth["advice has"] if not told.deaths else ():
        assert words in " ".join(told.data["advice"])
    for words in truth.get("not said", ()):
        assert words.lower() not in told.text.lower()
    assert told.status == int(bool(set(told.deaths) - {"not fork"}))
    # A line to copy is as long as the path of this Python makes it.
    wrapped = [line for line in told.text.splitlines() if COMMAND not in line]
    assert max(map(len, wrapped)) <= 80
    assert not re.search(r"(?i)nothing (needs|to do|is to be done)", told.text)


def test_two_things_that_people_brought_are_named_as_each_is_alone_in_either_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brought = [
        b"".join((case.parent / name).read_bytes() for name in inputs) for case, inputs in CASES
    ]
    alone = []
    for number, text in enumerate(brought):
        (tmp_path / f"{number}.log").write_bytes(text)
        alone.append(set(Doctor(capsys, tmp_path / f"{number}.log").counts))
    for number, text in enumerate(brought):
        other = (number * 7 + 3) % len(brought)
        (tmp_path / "both.log").write_bytes(brought[other] + text)
        assert set(Doctor(capsys, tmp_path / "both.log").counts) == alone[number] | alone[other]


# --- crash reports


def as_text(ips: Path, layout: str) -> str:
    """The text that macOS's window shows for a report: new, or old as in macOS 10.14 to 11."""
    header, body = (json.loads(part) for part in ips.read_text("utf-8").split("\n", 1))
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
Exception Note:        EXC_CORPSE_NOTIFY

Termination Signal:    Segmentation fault: 11
Termination Reason:    Namespace SIGNAL, Code {"0xb" if old else "11 Segmentation fault: 11"}

Application Specific Information:
{notes}

Thread 0:: com.apple.other
0   _setproctitle.decoy           \t       0x190001000 decoy + 1

Thread 1 Crashed:: Dispatch queue: com.apple.main-thread
{chr(10).join(frames)}

Thread 2:
0   _setproctitle.decoy           \t       0x190001000 decoy + 1

Thread 1 crashed with ARM Thread State (64-bit):
    x0: 0x0000000000000000   x1: 0x0000000000000000   x2: 0x0000000000000000

Binary Images:
       0x10498c000 -        0x1049affff {header["app_name"]} (*) <abc> /Users/USER/*/{header["app_name"]}
"""


FORMS: dict[str, Callable[[Path], str]] = {
    "file": lambda ips: ips.read_text("utf-8"),
    "body of a file": lambda ips: ips.read_text("utf-8").partition("\n")[2],
    "file in two lines": lambda ips: "\n".join(
        json.dumps(json.loads(part)) for part in ips.read_text("utf-8").split("\n", 1)
    ),
    "old text": lambda ips: as_text(ips, "old"),
    "new text": lambda ips: as_text(ips, "new"),
    "text with the JSON below": lambda ips: (
        as_text(ips, "new")
        + "       0x104 - 0x105 image (*) <> /usr/lib/image\n" * 300
        + "\n-----------\nFull Report\n-----------\n\n"
        + ips.read_text("utf-8")
    ),
    "in Markdown": lambda ips: (
        f"It crashed:\n\n```{as_text(ips, 'new').lstrip('-').lstrip()}```\nWhy?\n"
    ),
    "with a web page's blanks": lambda ips: as_text(ips, "new").replace("  ", "\xa0 "),
    "a file with a web page's blanks": lambda ips: ips.read_text("utf-8").replace(" ", "\xa0"),
    "of PyPy": lambda ips: ips.read_text("utf-8").replace("ython", "yPy"),
    "in an e-mail": lambda ips: quoted(as_text(ips, "old"), "> ", "\r\n"),
    "a file in an e-mail": lambda ips: quoted(ips.read_text("utf-8"), "> "),
    "behind a program's name": lambda ips: quoted(as_text(ips, "new"), "web.1 | "),
    "a file behind a program's name": lambda ips: quoted(
        ips.read_text("utf-8"), "12:31:40 web.1    | "
    ),
}


def quoted(text: str, before: str, end: str = "\n") -> str:
    return "".join(f"{before}{line}{end}" for line in text.splitlines())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", REPORTS)
def test_a_crash_report_tells_its_cause_in_each_form_that_people_have(
    name: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "what I copied"
    file.write_bytes(FORMS[form](DATA / f"crash-reports/{name}.ips").encode())
    told = Doctor(capsys, file)
    assert told.counts == {REPORTS[name]: 1}
    death = told.deaths[REPORTS[name]]
    assert death["sure"] == "report"
    is_beyond_the_shim = REPORTS[name] not in ("setproctitle", "unknown", "not fork")
    assert (doctor.NOT_ALONE in death["says"]) is is_beyond_the_shim
    assert told.data["looked_at"] == {"crash report": 1} and not told.data["not_read"]
    last = death["last"]
    assert (last["place"], last["time"]) == (str(file), "2025-01-07 15:12:30.1013 +0000")
    assert told.status == int(REPORTS[name] != "not fork")


@pytest.mark.parametrize("part", range(5, 100, 6))
@pytest.mark.parametrize("name", REPORTS)
def test_a_crash_report_that_is_cut_off_is_named_and_tells_what_it_can(
    name: str, part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (DATA / f"crash-reports/{name}.ips").read_bytes()
    (tmp_path / "a.ips").write_bytes(whole[: len(whole) * part // 100])
    told = Doctor(capsys, tmp_path)
    assert "cut off" in told.not_read["a.ips"] and "cut off" in told.text
    # The images, which would tell libdispatch, come last; and "not fork" is said of whole reports only.
    certain = REPORTS[name] if REPORTS[name] not in ("libdispatch", "unknown", "not fork") else None
    assert len(told.counts) == 1 and set(told.counts) <= {"unknown", certain}
    assert part < 80 or certain in (None, *told.counts)


@pytest.mark.parametrize("below", ["2026-11-27 10:00:00 {}\n", '{{"event": "{}"}}\n', "{}\n"])
@pytest.mark.parametrize("part", range(10, 100, 15))
def test_a_crash_report_that_is_cut_off_does_not_hide_the_log_behind_it(
    part: int, below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (DATA / "crash-reports/python3.12-kalite2844.ips").read_text("utf-8")
    log = "".join(
        below.format(line) for line in ("all is well", "Worker (pid:1) was sent SIGKILL!")
    )
    for glue in ("", "\n"):
        told = logged(tmp_path, capsys, whole[: len(whole) * part // 100] + glue + log)
        assert told.counts["killed"] == 1


def test_of_a_file_whose_beginning_was_not_copied_the_rest_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (DATA / "crash-reports/python3.12-kalite2844.ips").read_text("utf-8")
    part = whole[whole.index(' "procName"') :]
    assert logged(tmp_path, capsys, part).counts == {"_scproxy": 1}
    assert logged(tmp_path, capsys, part * 2).counts == {"_scproxy": 2}


@pytest.mark.parametrize("end", [":", '",', '": "SIG', "{", "11,", "]", "tru"])
def test_what_stands_in_the_line_in_which_a_crash_report_is_cut_off_is_read(
    end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (DATA / "crash-reports/python3.12-kalite2844.ips").read_text("utf-8")
    cut = whole[: whole.index(end, 250) + len(end)]
    told = logged(tmp_path, capsys, f"{cut}Worker (pid:1) was sent SIGKILL!\nall is well\n")
    assert told.counts == {"killed": 1, "unknown": 1}


CUTS = [
    "...",
    "[...]",
    "",
    "(snip)",
    "[... 12 lines omitted ...]",
    "2026-11-27 10:00:00 all is well",
]


@pytest.mark.parametrize("cut", CUTS)
def test_of_a_report_that_people_cut_all_frames_up_to_the_next_thread_count(
    cut: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = as_text(DATA / "crash-reports/python3.12-kalite2844.ips", "new").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("0   libdispatch"))
    kept = [*lines[: first + 1], cut, *lines[first + 2 :]]
    told = logged(tmp_path, capsys, "\n".join(kept) + "\n")
    assert told.counts == {"_scproxy": 1} and not told.not_read


def test_an_excerpt_that_names_no_process_counts_where_it_tells_a_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """    Exception Type:        EXC_BAD_ACCESS (SIGSEGV)

and the stack looks like:

```
Thread 0 Crashed:: Dispatch queue: com.apple.main-thread
0   libdispatch.dylib  0x00007fff8aab2c13 dispatch_group_async + 533
1   {image}  0x00007fff915fd228 APL_dgemm + 1100
```
"""
    known = logged(tmp_path, capsys, text.format(image="libBLAS.dylib"))
    assert known.counts == {"blas": 1}
    other = logged(tmp_path, capsys, text.format(image="libother.dylib"))
    assert other.counts == {} and other.data["looked_at"] == {"non-Python report": 1}


def test_a_stack_alone_counts_where_it_tells_a_cause_and_not_where_it_may_be_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = [
        "0   CoreFoundation         0x00007ff81b2b5e9b __exceptionPreprocess + 242",
        "1   libobjc.A.dylib        0x00007ff81ae1c9e4 objc_exception_throw + 48",
    ]
    assert not logged(tmp_path, capsys, "\n".join(stack) + "\n").counts
    stack.append("2   _scproxy.cpython-39-darwin.so  0x000000018e69bfc0 get_proxies + 76")
    assert logged(tmp_path, capsys, "\n".join(stack) + "\n").counts == {"_scproxy": 1}
    assert logged(tmp_path, capsys, "\n".join(stack * 2) + "\n").counts == {"_scproxy": 2}


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("Process: scheduler [4242]", {}),
        ("Exception Type:  EXC_CRASH (SIGABRT)", {"unknown": 1}),
        ("0   libfoo.dylib   0x00007fff12345 foo + 12", {}),
        ("Termination Reason: Error", {}),
    ],
)
def test_what_only_looks_like_a_crash_report_hides_nothing(
    line: str, counts: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        told = logged(tmp_path, capsys, f"{line}\nWorker (pid:1) was sent SIGKILL!\n")
        assert told.counts == {"killed": 1, **counts}
        assert told.data["looked_at"] == {"log": 1}


@pytest.mark.parametrize(
    ("frames", "first"),
    [
        (
            ["libsystem_kernel.dylib __pthread_kill", "libsystem_c.dylib abort", "libfoo.dylib f"],
            "libfoo",
        ),
        (
            ["libsystem_kernel.dylib __pthread_kill", "Python faulthandler_user", "libfoo.dylib f"],
            "libfoo",
        ),
        (
            ["libsystem_platform.dylib _sigtramp", "libc++abi.dylib abort_message", "Python f"],
            "Python",
        ),
    ],
)
def test_of_a_process_that_did_not_fork_the_first_image_is_named_that_is_not_the_systems_own_end(
    frames: list[str], first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ips = tmp_path / "a.ips"
    header, body = (
        (DATA / "crash-reports/Python-2023-notforked-keychain.ips")
        .read_text("utf-8")
        .split("\n", 1)
    )
    data = json.loads(body)
    data["usedImages"] = [{"name": frame.split()[0]} for frame in frames]
    data["threads"][data["faultingThread"]]["frames"] = [
        {"imageIndex": number, "symbol": frame.split()[1]} for number, frame in enumerate(frames)
    ]
    ips.write_text(f"{header}\n{json.dumps(data)}", "utf-8")
    told = Doctor(capsys, ips)
    assert told.counts == {"not fork": 1}
    assert told.deaths["not fork"]["last"]["quote"].startswith(first)


@pytest.mark.parametrize("behind", ["another file", "a log", "a text", "itself in one line"])
def test_what_stands_behind_a_file_whose_last_line_has_no_end_is_read(
    behind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "python3.12-kalite2844"
    file = DATA / f"crash-reports/{name}.ips"
    first = file.read_text("utf-8").rstrip("\n")
    both = {
        "another file": (first + first, {REPORTS[name]: 2}),
        "a log": (f"{first}Worker (pid:7) was sent SIGSEGV!\n", {REPORTS[name]: 1, "unknown": 1}),
        "a text": (first + as_text(file, "new"), {REPORTS[name]: 2}),
    }
    head, body = first.split("\n", 1)
    in_a_line = f"{head}\n{json.dumps(json.loads(body))}"
    both["itself in one line"] = (in_a_line + in_a_line, {REPORTS[name]: 2})
    text, counts = both[behind]
    (tmp_path / "both").write_text(text, "utf-8")
    assert Doctor(capsys, tmp_path / "both").counts == counts


def test_reports_of_other_programs_and_of_probe_are_read_and_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = (DATA / "crash-reports/python3.12-kalite2844.ips").read_text("utf-8")
    (tmp_path / "other.ips").write_text(
        re.sub("_?[Pp]y[Tt]hon[0-9.]*|_scproxy", "safari", ours), "utf-8"
    )
    named = ours.replace(
        '"triggered": true,', '"triggered": true, "name": "airflow-setproctitle-shim probe",'
    )
    (tmp_path / "probe.ips").write_text(named, "utf-8")
    text = as_text(DATA / "crash-reports/python3.12-kalite2844.ips", "new")
    (tmp_path / "probe.crash").write_text(
        text.replace("Thread 1 Crashed::", "Thread 1 Crashed:: airflow-setproctitle-shim probe "),
        "utf-8",
    )
    told = Doctor(capsys, tmp_path)
    assert told.counts == {} and told.status == 0
    assert told.data["looked_at"] == {"non-Python report": 1, "report of `probe`": 2}


# --- dumps

SITE = "/Users/u/.venv/lib/python3.12/site-packages"
FRAMES = {
    "setproctitle": [
        f'  File "{SITE}/setproctitle/__init__.py", line 57 in <module>\n  File "a.py", line 1 in f',
        f'  File "{SITE}/rq/worker.py", line 400 in procline\n  File "{SITE}/rq/worker.py", line 9 in work',
        f'  File "{SITE}/celery/platforms.py", line 400 in set_mp_process_title\n  File "a.py", line 9 in work',
        f'  File "{SITE}/airflow/executors/local_executor.py", line 70 in _run_worker',
        f'  File "{SITE}/airflow/utils/serve_logs.py", line 70 in serve_logs',
        f'  File "{SITE}/airflow/dag_processing/manager.py", line 70 in _run_processor_manager',
        f'  File "{SITE}/gunicorn/workers/base.py", line 70 in init_process',
        f'  File "{SITE}/distributed/proctitle.py", line 70 in enable_proctitle_on_current',
        f'  File "{SITE}/mutmut/__main__.py", line 70 in _run',
        f'  File "{SITE}/django_q/worker.py", line 54 in worker',
    ],
    "fork": [
        f'  File "/x/subprocess.py", line 1885 in _execute_child\n  File "{SITE}/a.py", line 1 in f'
    ],
    "_scproxy": [
        '  File "/x/urllib/", line 2631 in proxy_bypass_macosx_sysconf\n  File "/x/requests/", line 8 in get',
        f'  File "/x/urllib/request.py", line 9 in getproxies_macosx_sysconf\n  File "{SITE}/gunicorn/util.py", line 4 in _setproctitle',
    ],
    "libpq": [
        f'  File "{SITE}/psycopg2/__init__.py", line 122 in connect\n  File "db.py", line 1 in f',
        f'  File "{SITE}/psycopg/connection.py", line 436 in _connect_gen\n  File "db.py", line 1 in f',
    ],
    "network": [
        '  File "/x/lib/python3.12/socket.py", line 978 in getaddrinfo\n  File "x.py", line 1 in f',
        '  File "/x/lib/python3.12/ssl.py", line 978 in create_default_context\n  File "x.py", line 1 in f',
    ],
    "blas": [
        f'  File "{SITE}/numpy/linalg/_linalg.py", line 9 in solve\n  File "x.py", line 1 in f',
        f'  File "{SITE}/torch/nn/functional.py", line 9 in linear\n  File "x.py", line 1 in f',
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
    "with other lines between": lambda line: f"{line}\n2026-11-27 10:00:00 all is well",
}
DUMPS = [(cause, one) for cause, many in FRAMES.items() for one in many]


def dump(frames: str) -> str:
    return f"""Fatal Python error: Segmentation fault

Thread 0x000000016b (most recent call first):
  File "{SITE}/setproctitle/__init__.py", line 9 in setproctitle

Current thread 0x00000001fb058f40 (most recent call first):
{frames}

Extension modules: setproctitle._setproctitle (total: 1)"""


@pytest.mark.parametrize("behind", [*BEHIND, "in one line of JSON"])
@pytest.mark.parametrize(("cause", "frames"), DUMPS)
def test_a_dumps_innermost_known_frame_suggests_the_cause(
    cause: str, frames: str, behind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*map(BEHIND.get(behind, str), dump(frames).splitlines())]
    text = json.dumps({"event": dump(frames)}) if behind not in BEHIND else "\n".join(lines)
    told = logged(tmp_path, capsys, f"{text}\nordinary\n" * 2)
    assert told.counts == {cause: 2} and told.deaths[cause]["sure"] == "dump"


@pytest.mark.parametrize(("cause", "frames"), DUMPS)
def test_a_dump_says_what_it_was_doing_and_what_that_often_is_on_a_mac_only(
    cause: str, frames: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = logged(tmp_path, capsys, dump(frames)).deaths[cause]
    row = causes.BY_NAME[cause]
    assert told["says"].startswith(row.was_doing)
    assert row.often in told["says"] and row.says not in told["says"]
    assert told["label"] == "try"
    assert (told["frame"] in frames and bool(told["frame"])) is (cause != "unknown")
    linux = re.sub(r'File "(/Users/u/.venv|/x)?', 'File "/usr/local/lib/python3.12/', frames)
    on_linux = logged(tmp_path, capsys, dump(linux)).deaths[cause]["says"]
    assert "Linux" in on_linux and "Mac" not in on_linux and row.was_doing in on_linux


def test_a_dump_counts_without_its_first_line_if_its_frames_tell_a_cause_and_nobody_asked_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, rest = dump(FRAMES["libpq"][0]).partition("\n\n")
    assert logged(tmp_path, capsys, rest).counts == {"libpq": 1}
    assert logged(tmp_path, capsys, FRAMES["libpq"][0] + "\n").counts == {"libpq": 1}
    assert logged(tmp_path, capsys, dump(FRAMES["unknown"][0]).partition("\n\n")[2]).counts == {}
    assert logged(tmp_path, capsys, f"Timeout (0:00:05)!\n{rest}").counts == {}
    after = logged(tmp_path, capsys, f"Timeout (0:00:05)!\n{rest}\n{dump(FRAMES['libpq'][0])}\n")
    assert after.counts == {"libpq": 1}


def test_a_traceback_is_no_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traceback = FRAMES["libpq"][0].replace(" in ", ", in ")
    assert (
        logged(tmp_path, capsys, f"Traceback (most recent call last):\n{traceback}\n").counts == {}
    )


@pytest.mark.parametrize(
    "cause", ["Bus error", "Aborted", "Illegal instruction", "Segmentation fault"]
)
def test_each_way_to_die_that_faulthandler_knows_begins_a_dump(
    cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = FRAMES["libpq"][0]
    text = (
        f"Fatal Python error: {cause}\n\nCurrent thread 0x1f (most recent call first):\n{frames}\n"
    )
    assert logged(tmp_path, capsys, text).counts == {"libpq": 1}


def test_native_frames_of_a_dump_tell_more_than_those_of_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = """

Current thread's C stack trace (most recent call first):
  Binary file "/opt/homebrew/Python", at _Py_DumpStack+0x48 [0x102bd5f14]
  Binary file "/x/_scproxy.cpython-314-darwin.so", at get_proxies+0x34 [0x102bd5f14]"""
    text = dump(FRAMES["unknown"][0] + stack)
    told = logged(tmp_path, capsys, text)
    assert told.counts == {"_scproxy": 1} and "get_proxies" in told.deaths["_scproxy"]["frame"]


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        ("_setproctitle.cpython-39-darwin.so  0x000000010bf2c888 set_title + 80", "setproctitle"),
        ("CoreFoundation  0x000000010bf2c888 CFStringCreate + 80", "unknown"),
    ],
)
def test_uwsgis_stack_names_what_is_sure_and_nothing_that_many_go_through(
    frame: str, cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"""!!! uWSGI process 20991 got Segmentation Fault !!!
*** backtrace of 20991 ***
0   libuwsgi.so   0x0000000104b1822c uwsgi_backtrace + 44
1   {frame}
*** end of backtrace ***
"""
    told = logged(tmp_path, capsys, text)
    assert told.counts == {cause: 1}
    assert ("1   _setproctitle" in told.deaths[cause]["frame"]) is (cause == "setproctitle")


def test_what_a_debugger_shows_of_the_thread_that_died_when_it_is_asked_again_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = "* thread #1, stop reason = EXC_BAD_ACCESS (code=1, address=0x0)\n"
    first, other, again = (
        f"    frame #{number}: 0x00007ff81b2b5e9b {image}`f + 12\n"
        for number, image in enumerate(("a.so", "b.so", "_scproxy.cpython-312-darwin.so"))
    )
    text = f"{stopped}{first}  thread #2\n{other}{stopped}{again}"
    assert logged(tmp_path, capsys, text).counts == {"_scproxy": 1}


def test_of_a_pasted_report_without_its_stacks_the_json_below_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FORMS["text with the JSON below"](DATA / "crash-reports/python3.12-kalite2844.ips")
    head, below = text.partition("Thread 0::")[0], text.partition("Full Report")[2]
    told = logged(tmp_path, capsys, f"{head}Full Report{below}")
    assert told.counts == {"_scproxy": 1} and told.deaths["_scproxy"]["sure"] == "report"


def test_a_dump_ends_where_nothing_of_it_has_followed_for_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = dump(FRAMES["libpq"][0]).partition("\n\n")[2]
    head = "Fatal Python error: Segmentation fault\n"
    for lines, counts in ((3, {"libpq": 1}), (100, {"libpq": 1, "unknown": 1})):
        told = logged(tmp_path, capsys, head + "all is well\n" * lines + stack)
        assert told.counts == counts


def test_a_line_that_looks_like_a_frame_may_name_a_death(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = 'ERROR File "a.py", line 3 in run: worker 7 was sent SIGSEGV!\n'
    assert logged(tmp_path, capsys, line).counts == {"unknown": 1}


def test_a_stack_without_a_head_ends_where_the_next_dump_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = dump(FRAMES["_scproxy"][0]).partition("\n\n")[2]
    text = f"{stack}\n{dump(FRAMES['libpq'][0])}"
    assert logged(tmp_path, capsys, text).counts == {"_scproxy": 1, "libpq": 1}


# --- lines and logs


@pytest.mark.parametrize(
    ("name", "counts", "lines"),
    [
        ("logs/airflow-2.10.5", {"unknown": 774}, {1182}),
        ("logs/airflow-3.0.2-no-faulthandler", {}, set()),
        ("logs/long-dumps", {"setproctitle": 5}, {94}),
        ("lines/lldb", {"objective-c": 1, "_scproxy": 2, "unknown": 1}, {2, 5, 28}),
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
        assert (
            death["last"]["quote"] == log.read_text("utf-8").splitlines()[int(number) - 1].strip()
        )
    assert ("export PYTHONFAULTHANDLER=1" in " ".join(told.data["advice"])) is (not counts)


DEATHS = (DATA / "lines/deaths.txt").read_text("utf-8").splitlines()
NO_DEATHS = (DATA / "lines/no-deaths.txt").read_text("utf-8").splitlines()
MORE_DEATHS = [row["line"] for row in json.loads((DATA / "lines/words.json").read_text("utf-8"))]


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


@pytest.mark.parametrize("line", MORE_DEATHS)
def test_programs_own_words_for_a_death_are_known(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (line, f"web.1 | {line}", f"\x1b[31m{line}\x1b[0m", json.dumps({"event": line})):
        told = logged(tmp_path, capsys, f"{text}\n")
        assert sum(told.counts.values()) == 1 and set(told.counts) <= {"unknown", "killed"}


def test_numbers_that_name_no_death_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in NO_DEATHS:
        assert logged(tmp_path, capsys, f"{line}\n").counts == {}, line
    told = logged(tmp_path, capsys, "".join(f"{line}\n" for line in NO_DEATHS))
    assert told.status == 0
    assert "No line here names a signal that kills" in told.text
    assert told.data["says"] == doctor.NOTHING


def test_of_a_long_line_what_stands_around_the_sign_is_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = logged(tmp_path, capsys, f"{'before ' * 3000}was sent SIGSEGV! {'after ' * 3000}\n")
    quote = told.deaths["unknown"]["last"]["quote"]
    assert "before was sent SIGSEGV! after" in quote and len(quote) < 250


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
    assert told.deaths["unknown"]["advice"] == []
    assert "deaths above" in told.deaths["unknown"]["says"]
    assert told.deaths["objective-c"]["says"].startswith("Objective-C ended a process after fork.")


def test_the_word_that_tells_most_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "A worker process was unexpectedly terminated. The exit codes of the workers are {SIGKILL(-9)}"
    assert logged(tmp_path, capsys, f"{line}\n").counts == {"killed": 1}


def test_a_dump_and_lines_are_told_wherever_they_lie_in_a_large_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"Fatal Python error: Segmentation fault\n\nCurrent thread 0x1f (most recent call first):\n{FRAMES['libpq'][0]}\n"
    ordinary = "2026-11-27T10:00:00Z all is well\n"
    lines = 0
    with (tmp_path / "a.log").open("w") as file:
        for number in range(
            60
        ):  # more than one for each block that is read, never at the same place
            file.write(ordinary * (1700 + number) + text + f"{DEATHS[0]}\n")
            lines += 1700 + number + 6
    told = Doctor(capsys, tmp_path)
    assert told.counts == {"libpq": 60, "unknown": 60}
    assert told.deaths["unknown"]["last"]["place"] == f"{tmp_path}/a.log:{lines}"
    assert told.deaths["libpq"]["last"]["place"] == f"{tmp_path}/a.log:{lines - 5}"
    for death in told.deaths.values():
        assert death["last"]["time"] == "2026-11-27T10:00:00Z"


def test_what_doctor_prints_is_no_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Doctor(
        capsys, *DATA.glob("cases/*/*.log"), *DATA.glob("crash-reports/*"), *DATA.glob("logs/*")
    )
    assert len(told.counts) > 8
    nothing = logged(tmp_path, capsys, "all is well\n")
    for text in (
        told.text,
        quoted(told.text, "web.1 | "),
        told.text.replace("  ", "\xa0 "),
        json.dumps(told.data, indent=2),
        nothing.text,
        json.dumps(nothing.data, indent=2),
    ):
        assert logged(tmp_path, capsys, text).counts == {}
        assert logged(tmp_path, capsys, text.replace("\n", "\n> ")).counts == {}
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
        assert [note["label"] for note in told.data["notes"]] == ["fix"]


@pytest.mark.parametrize("frame", ["celery/app/trace.py", "billiard/pool.py", "mine/unpack.py"])
def test_celery_that_cannot_use_its_billiard_is_known_by_whose_frames_raise(
    frame: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"""Traceback (most recent call last):
  File "{SITE}/{frame}", line 640, in fast_trace_task
    tasks, accept, hostname = _loc
ValueError: not enough values to unpack (expected 3, got 0)
"""
    told = logged(tmp_path, capsys, text)
    notes = [note["cause"] for note in told.data["notes"]]
    assert notes == ([] if "mine" in frame else ["celery-billiard"])
    assert ("billiard<4.3" in told.text) is bool(notes) and told.status == 0


@pytest.mark.parametrize("symbol", ["CoreFoundation`CFStringCreateWithCString", "a.so`a"])
def test_a_debuggers_stack_in_a_library_that_many_go_through_suggests_that(
    symbol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"""* thread #1, stop reason = EXC_BAD_ACCESS (code=1, address=0x0)
  * frame #0: 0x00007ff81b2b5e9b {symbol} + 12
    frame #1: 0x00007ff81b2b5e9c Python`_PyEval_EvalFrameDefault + 12
"""
    cause = "corefoundation" if "CF" in symbol else "unknown"
    assert logged(tmp_path, capsys, text).counts == {cause: 1}


def test_a_crash_report_that_does_not_end_is_not_held_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crash_reports, "LARGEST", 1000)
    report, lines = Json(), 1
    assert report.take(b'  "procName" : "Python",\n')
    while not report.is_over:
        assert report.take(b'  "a" : 1,\n')
        lines += 1
        assert lines < 200


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("stopped by signal 11", 1),
        ("stopped by signal 11 of 139", 0),
        ("stopped by signal 11.5", 0),
        ('{"event":"see https://x.org/a#by-signal.","signal":-6,"signal_name":"SIGABRT"}', 1),
        ('{"event":"see https://x.org/a","exit_code":"Negsignal.SIGABRT"}', 1),
        ("see https://x.org/SIGABRT", 0),
        ("see https://x.org/?q=SIGABRT", 0),
    ],
)
def test_what_stands_around_a_word_decides(
    line: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(logged(tmp_path, capsys, f"{line}\n").counts.values()) == count


def test_a_line_is_not_judged_by_those_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where it is kept, as it may begin a stack, until the next block is read."""
    line = 'File "a.py", line 3 in f: not enough values to unpack (expected 3, got 0)\n'
    monkeypatch.setattr(inputs, "BLOCK", 2000)
    first = f"{'x' * (1999 - len(line))}\n{line}"
    below = "see celery/app/trace.py\n" * 40 + "Worker was sent SIGKILL!\n"
    told = logged(tmp_path, capsys, first + below)
    assert told.counts == {"killed": 1} and told.data["notes"] == []


def test_a_cause_that_a_line_names_is_told_as_a_guess(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = logged(tmp_path, capsys, "fork -> _pthread_atfork_child_handlers -> SIGSEGV\n")
    fork = told.deaths["fork"]
    assert (fork["sure"], fork["label"]) == ("line", "try") and " can die" in fork["says"]


def test_lines_that_differ_in_ids_and_numbers_are_each_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [uuid.uuid5(uuid.NAMESPACE_OID, str(number)) for number in range(100)]
    codes = [(0, 1, 139, 11, -11, 137)[number % 6] for number in range(100)]
    lines = [f"2026-11-27 task {id_} exited with code {code}" for id_, code in zip(ids, codes)]
    # A line that begins like the end of an id is a line, too.
    lines.insert(1, "-1234-1234-1234-123456789012 was sent SIGKILL!")
    told = logged(tmp_path, capsys, "\n".join(lines))
    unknown, killed = (sum(code in its for code in codes) for its in ({139, 11, -11}, {137}))
    assert told.counts == {"unknown": unknown, "killed": killed + 1}
    last = told.deaths["unknown"]["last"]
    number = int(last["place"].rpartition(":")[2])
    assert last["quote"] == lines[number - 1] and codes[number - 2] in (139, 11, -11)


def test_other_json_is_not_read_as_a_crash_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: list[bytes] = []
    take = Json.take

    def counted(self: Json, raw: bytes) -> bool:
        taken.append(raw)
        return take(self, raw)

    monkeypatch.setattr(Json, "take", counted)
    other = '{\n  "event": "process exited",\n  "exit_code": 0\n}\n'
    assert logged(tmp_path, capsys, other * 10_000).counts == {}
    # What stands behind the last lines of a block is not known.
    assert 0 < len(taken) < 1000
    report = (DATA / "crash-reports/python3.12-kalite2844.ips").read_text("utf-8")
    assert logged(tmp_path, capsys, other * 1000 + report).counts == {"_scproxy": 1}


# --- inputs


def test_standard_input_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = as_text(DATA / "crash-reports/python3.12-kalite2844.ips", "new")
    for options in ([], ["--json"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert cli.main(["doctor", *options, "-"]) == 1
        assert "_scproxy" in capsys.readouterr().out


def test_a_long_line_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK", 100)
    monkeypatch.setattr(inputs, "LONGEST_LINE", 1000)
    text = b"one\n" + b"x" * 5000 + b"\nlast"
    (tmp_path / "a.log").write_bytes(text)
    parts = list(inputs.blocks(str(tmp_path / "a.log")))
    assert b"".join(parts) == text and max(map(len, parts)) < 1200 and parts[-1] == b"last"


def test_a_nul_in_the_middle_of_a_log_is_no_reason_not_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inputs, "BLOCK", 100)
    told = logged(tmp_path, capsys, "all is well\n" * 20 + "a\0b\nWorker was sent SIGKILL!\n")
    assert told.counts == {"killed": 1} and not told.not_read


def test_a_closed_standard_input_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    told = Doctor(capsys, "-")
    assert told.status == 1 and "standard input is closed" in told.not_read["-"]


def test_a_terminal_as_standard_input_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(DEATHS[0].encode()))
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    assert cli.main(["doctor", "-"]) == 1
    assert "Control-D" in capsys.readouterr().err


def test_long_work_says_on_a_terminal_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inputs, "QUIET", -1)
    assert cli.main(["doctor", str(DATA / "lines/deaths.txt")]) == 1
    assert "MB so far" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["doctor", str(DATA / "lines/deaths.txt")]) == 1
    assert "deaths.txt: 0 MB so far" in capsys.readouterr().err


READABLE = {
    "a.log.gz": gzip.compress(f"{OBJC}\n".encode()),
    "a.log": f"{OBJC}\n".encode("utf-16"),
    "big endian.log": codecs.BOM_UTF16_BE + f"{OBJC}\n".encode("utf-16-be"),
    "utf-16.gz": gzip.compress(f"{OBJC}\n".encode("utf-16")),
    "marked.log": codecs.BOM_UTF8 + f"{OBJC}\n".encode(),
    "emptied.log": b"\0" * 3_000_000 + f"{OBJC}\n".encode(),
    "latin-1.log": b"caf\xe9 \xff\n" + f"{OBJC}\n".encode(),
    "no line end.log": OBJC.encode(),
    "carriage returns.log": f"{OBJC}\r\n".encode(),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_can_be_read_is(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(READABLE[name])
    told = Doctor(capsys, tmp_path / name)
    assert told.counts == {"objective-c": 1} and not told.not_read
    assert told.deaths["objective-c"]["last"]["quote"] == OBJC


UNREADABLE = {
    "a.rtf": (b"{\\rtf1\\ansi " + OBJC.encode(), "save it as plain text"),
    "a.bin": (b"\x7fELF\x02\0\0\0", "save it as plain text"),
    "cut.gz": (gzip.compress(b"well\n" * 9999)[:40], "copy it again"),
    "broken.gz": (b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"broken" * 9, "copy it again"),
    "no.gz": (b"\x1f\x8bnothing", "copy it again"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named_with_what_to_do(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, what_to_do = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    told = Doctor(capsys, tmp_path / name)
    assert told.status == 1 and what_to_do in told.not_read[name]
    assert what_to_do in re.sub(r"\s+", " ", told.text)
    (tmp_path / "b.log").write_text(f"{OBJC}\n")
    (tmp_path / f"again {name}").write_bytes(content)
    beside = Doctor(capsys, tmp_path)
    assert beside.counts == {"objective-c": 1} and len(beside.not_read) == 2
    assert beside.text.count("not read") == 1


def test_of_a_broken_gzip_file_what_could_be_unpacked_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = gzip.compress(
        OBJC.encode() + b"\n" + random.Random(1).randbytes(3_000_000).hex().encode(), 1
    )
    (tmp_path / "a.gz").write_bytes(packed[:-99])
    told = Doctor(capsys, tmp_path / "a.gz")
    assert told.counts == {"objective-c": 1} and told.not_read


def test_that_a_directory_holds_what_cannot_be_read_is_told_and_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.bin").write_bytes(UNREADABLE["a.bin"][0])
    told = Doctor(capsys, tmp_path)
    assert told.status == 0 and told.not_read


def test_without_the_right_to_read_an_administrator_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text(OBJC)
    (tmp_path / "logs").mkdir()

    def refuse(path: object, *arguments: object) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))  # type: ignore[call-overload]

    monkeypatch.setattr(inputs, "open", refuse, raising=False)
    monkeypatch.setattr(os, "scandir", refuse)
    told = Doctor(capsys, tmp_path / "a.log", tmp_path / "logs")
    assert told.status == 1 and set(told.not_read) == {"a.log", "logs"}
    assert all("administrator" in why for why in told.not_read.values())


# --- where it looks, and what needs attention


@pytest.fixture
def airflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AIRFLOW_HOME with its logs; the shim was installed at 12 o'clock."""
    installed = STATUS()._replace(installed="2026-11-22 12:00:00 +0000")
    monkeypatch.setattr(doctor, "status", lambda: installed)
    (tmp_path / "airflow/logs/dag").mkdir(parents=True)
    return tmp_path / "airflow"


@pytest.mark.parametrize("line", [DEATHS[0], "Worker (pid:1) was sent SIGKILL!"])
@pytest.mark.parametrize(
    ("time", "attention"),
    [
        ("2026-11-22 11:59:59 +0000", False),
        ("2026-11-22T12:00:01Z", True),
        ("2026-11-22 13:30:00 +0200", False),
        ("2026-11-22 10:30:00 -0200", True),
        ("2026-11-22 17:29:59 +05:30", False),
        ("2026-11-22 17:30:01 +05:30", True),
        ("2026-11-23 01:59:59", False),
        ("2026-11-23 02:00:01", True),
        ("12:30:00", False),
    ],
)
def test_a_bare_death_needs_attention_if_it_is_known_to_be_newer_than_the_installation(
    time: str, attention: bool, line: str, airflow_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (airflow_home / "logs/dag/task.log").write_text(f"[{time}] started\n{line}\n")
    told = Doctor(capsys)
    [death] = told.data["deaths"]
    assert death["attention"] is attention is bool(told.status)
    assert "PYTHONFAULTHANDLER" in told.text and "2026-11-22 12:00:00 +0000" in told.text
    assert Doctor(capsys, airflow_home / "logs").status == 1


def test_the_newest_sign_of_all_files_decides(
    airflow_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, day in (("a", 21), ("b", 24), ("c", 20)):
        (airflow_home / f"{name}.log").write_text(f"2026-11-{day} 10:00:00Z {DEATHS[0]}\n")
    told = Doctor(capsys)
    assert told.status == 1 and told.deaths["unknown"]["last"]["time"] == "2026-11-24 10:00:00Z"


@pytest.mark.parametrize(
    ("cause", "variable", "value"),
    [
        ("_scproxy", "NO_PROXY", "*"),
        ("_scproxy", "https_proxy", "http://proxy:8080"),
        ("libpq", "PGGSSENCMODE", "disable"),
        ("blas", "VECLIB_MAXIMUM_THREADS", "1"),
        ("objective-c", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY", "YES"),
    ],
)
def test_other_causes_need_attention_until_their_variable_is_set_to_what_helps(
    cause: str,
    variable: str,
    value: str,
    airflow_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = f"{OBJC}\n" if cause == "objective-c" else dump(FRAMES[cause][0])
    (airflow_home / "standalone.err").write_text(f"2020-01-01 10:00:00Z\n{text}\n")
    assert Doctor(capsys).status == 1
    monkeypatch.setenv(variable, "" if cause == "_scproxy" else "another value")
    assert Doctor(capsys).status == 1
    monkeypatch.setenv(variable, value)
    told = Doctor(capsys)
    assert told.status == 0 and told.deaths[cause]["advice"]
    assert Doctor(capsys, airflow_home / "standalone.err").status == 1


def test_the_default_places_are_macoss_and_airflows(
    airflow_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ips = (DATA / "crash-reports/python3.12-kalite2844.ips").read_bytes()
    text = as_text(DATA / "crash-reports/python3.12-rubypg631-psycopg-gss-segv.ips", "old")
    home, system = tmp_path / "home/Library/Logs/DiagnosticReports", tmp_path / "system"
    for directory in (home, system):
        (directory / "Retired").mkdir(parents=True)
        (directory / "Python-1.ips").write_bytes(ips)
        (directory / "Retired/Python-2.ips").write_bytes(ips)
        (directory / "Python-3.crash").write_text(text)
        (directory / "shutdown.log").write_text(DEATHS[0])
    # The system's directory is elsewhere here, with a name that tells what it is.
    system = system.rename(tmp_path / "DiagnosticReports")
    places = doctor._places()
    assert "/Library/Logs/DiagnosticReports" in places
    elsewhere = {"/Library/Logs/DiagnosticReports": str(system)}
    logs = [str(airflow_home / name) for name in ("scheduler.log", "a.out", "a.err")]
    for name in ("scheduler.log", "a.out", "a.err", "airflow.cfg", "logs/dag/task.log"):
        (airflow_home / name).write_text(f"2026-11-22 12:30:00Z {DEATHS[0]}\n")
    monkeypatch.setattr(
        doctor, "_places", lambda: [elsewhere.get(place, place) for place in [*places, *logs]]
    )
    told = Doctor(capsys)
    assert told.counts == {"_scproxy": 4, "libpq": 2, "unknown": 4}
    assert told.data["looked_at"] == {"crash report": 6, "log": 4}
    assert told.data["missing"] == []


def test_airflows_logs_are_sought_by_their_ends(
    airflow_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("scheduler.log", "a.out", "a.err", "airflow.cfg", "logs/dag/task.log"):
        (airflow_home / name).write_text(f"2026-11-22 12:30:00Z {DEATHS[0]}\n")
    told = Doctor(capsys)
    assert told.counts == {"unknown": 4} and told.data["looked_at"] == {"log": 4}
    assert all("DiagnosticReports" in path for path in told.data["missing"])
    assert "no such" in told.text


# --- what helps


def test_nobody_is_told_to_do_what_he_has_just_done(
    tmp_path: Path, airflow_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = " ".join(logged(tmp_path, capsys, f"{OBJC}\n").deaths["objective-c"]["advice"])
    assert lines.startswith(str(advice.REPORTS)) and "PYTHONFAULTHANDLER" in lines
    text = f"{OBJC}\n{dump(FRAMES['unknown'][0])}\n"
    with_dump = " ".join(logged(tmp_path, capsys, text).deaths["objective-c"]["advice"])
    assert "PYTHONFAULTHANDLER" not in with_dump and str(advice.REPORTS) in with_dump
    (tmp_path / "b.ips").write_bytes(
        (DATA / "crash-reports/python3.12-kalite2844.ips").read_bytes()
    )
    told = Doctor(capsys, tmp_path / "a.log", tmp_path / "b.ips")
    assert str(advice.REPORTS) not in " ".join(told.deaths["objective-c"]["advice"])
    (airflow_home / "a.log").write_text(f"{OBJC}\n")
    assert str(advice.REPORTS) not in " ".join(Doctor(capsys).deaths["objective-c"]["advice"])


def test_what_is_to_be_tried_stands_in_the_order_of_what_helped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = logged(tmp_path, capsys, f"{DEATHS[0]}\n")
    firsts = [each.partition("\n")[0] for each in told.deaths["unknown"]["advice"]]
    assert firsts == [
        advice.REPORTS.line,
        advice.RESTART.line,
        "export PYTHONFAULTHANDLER=1",
        "export NO_PROXY='*'",
        "launchctl setenv NO_PROXY '*'",
        "export PGGSSENCMODE=disable",
        "export OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES",
        advice.SPAWN.line,
    ]
    assert "http_proxy" in told.text  # for those who need a proxy


HELPS = {
    "setproctitle": ["restart", "`status`"],
    "fork": ["posix_spawn", "spawn"],
    "_scproxy": ["NO_PROXY='*'", "launchctl setenv NO_PROXY '*'", "restart"],
    "libpq": ["PGGSSENCMODE=disable", "launchctl setenv PGGSSENCMODE disable"],
    "network": ["3.2.2", "issues/69008", "spawn"],
    "blas": ["VECLIB_MAXIMUM_THREADS=1", "OMP_NUM_THREADS=1", "spawn"],
    "objective-c": ["NO_PROXY='*'", "PGGSSENCMODE", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES"],
    "corefoundation": ["restart", "PYTHONFAULTHANDLER", "NO_PROXY", "spawn"],
    "libdispatch": ["restart", "PYTHONFAULTHANDLER", "VECLIB_MAXIMUM_THREADS=1", "spawn"],
    "killed": ["memory", "Docker", "restart", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES"],
    "unknown": ["restart", "NO_PROXY", "spawn"],
    "not fork": ["makers"],
    "execution-api": ["AIRFLOW__API_AUTH__JWT_SECRET", "clocks"],
    "celery-billiard": ["'billiard<4.3'", "FORKED_BY_MULTIPROCESSING=1"],
}


@pytest.mark.parametrize("cause", causes.ALL, ids=[cause.name for cause in causes.ALL])
def test_each_cause_has_what_helps(cause: causes.Cause) -> None:
    lines = advice.lines(cause.helps, set())
    assert [words for words in HELPS[cause.name] if words not in "\n".join(lines)] == []
    for line in (each.partition("\n")[0] for each in lines):
        assert "docs/" not in line  # a wheel has no pages
        assert line.endswith(".") or not re.search(
            r"\.\.\.|<|>(?! out)", line.replace("'billiard<4.3'", "")
        )


@pytest.mark.parametrize(
    ("name", "label"),
    [("airflow45124", "fix"), ("kalite2844", "fix"), ("rubypg631-psycopg-gss-segv", "fix")]
    + [("celery869-sqlite", "try"), ("airflow64874-getaddrinfo", "try"), ("cpython102525", "try")],
)
def test_what_is_known_to_help_is_called_a_fix(
    name: str, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Doctor(capsys, DATA / f"crash-reports/python3.12-{name}.ips")
    assert told.data["deaths"][0]["label"] == label and f"\n  {label}   " in told.text


@pytest.mark.parametrize("version", ["2.10.5", ""])
def test_where_there_is_no_airflow_the_line_to_try_names_none(
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(advice, "version", lambda name: version)
    told = logged(tmp_path, capsys, "all is well\n")
    assert ("airflow standalone > out.log 2>&1" in told.text) is bool(version)
    assert ("YOUR COMMAND > out.log 2>&1" in told.text) is not bool(version)


def test_what_the_shim_lacks_comes_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    off = STATUS()._replace(
        ok=False, says="OFF: the startup file is missing.", fixes=("pip install it",)
    )
    monkeypatch.setattr(doctor, "status", lambda: off)
    told = logged(tmp_path, capsys, "all is well\n")
    assert told.text.startswith("OFF: the startup file is missing.\n  fix   pip install it\n")
    assert told.status == 1 and told.data["shim"]["says"] == off.says
