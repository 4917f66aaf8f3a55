"""The command line as people meet it: usage, terminals, pipes, and the sitecustomize command."""

from __future__ import annotations

import datetime
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from environments import ROOT, Venv, clean_environ, uv

from airflow_setproctitle_shim import __version__
from airflow_setproctitle_shim.diagnosis import cli, doctor, packages, probe, state
from airflow_setproctitle_shim.diagnosis.finding import Answer, Finding
from airflow_setproctitle_shim.diagnosis.probe import Run

SHIM = "airflow_setproctitle_shim"
DEATH = "[2036-11-22 10:00:00 +0000] [1] [ERROR] Worker (pid:2) was sent SIGSEGV!\n"
TEMPLATE = ROOT / "sitecustomize_template/sitecustomize.py"


# --- usage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--vers"],
        ["status", "--js"],
        ["probe", "-n", "0"],
        ["probe", "-n", "many"],
        ["probe", "--timeout", "0"],
        ["probe", "--timeout", "nan"],
        ["probe", "--method", "spawn"],
        ["status", "--python", ""],
        ["sitecustomize", "--write", "."],
        ["doctor", "--logs", ""],
        ["doctor", "--logs", "x" * 5000],
        ["doctor", "--logs", "\0"],
        ["doctor", "--only", "nothing"],
        ["doctor", "--logs", "/no/such/directory"],
        ["doctor", "--crash-reports", "/no/such/directory"],
    ],
    ids=lambda arguments: " ".join(arguments).replace("\0", "NUL")[:40],
)
def test_wrong_usage_is_2_and_says_what_is_right(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith("usage: airflow-setproctitle-shim")
    assert ": error: " in told.err.splitlines()[-1]
    assert told.out == ""


def test_the_program_and_the_module_are_the_same(make_venv: Callable[..., Venv]) -> None:
    venv = make_venv("setproctitle")
    program = subprocess.run(
        [str(venv.path / "bin/airflow-setproctitle-shim"), "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environ(),
    )
    assert program.stdout == venv.run("-m", SHIM, "--version").stdout == f"{__version__}\n"


@pytest.mark.skipif(not (3, 10) <= sys.version_info < (3, 13), reason="other Pythons lay it out otherwise")
def test_help_says_all_that_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for command in ([], *([name] for name in cli.COMMANDS)):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        print()
    assert capsys.readouterr().out == (ROOT / "tests/data/help.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["probe", "-n", "many"], "-n/--children: 'many' is not a whole number above 0, 86400 at most"),
        (["probe", "--timeout", "86401"], "--timeout: '86401' is not a whole number above 0, 86400 at most"),
        (["doctor", "--logs", "/no/such"], "--logs: there is no '/no/such'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f" {arguments[0]}: error: argument {message}")


@pytest.mark.parametrize(
    ("options", "platform", "asked"),
    [
        ([], "linux", (20, 30, 0, False, True)),
        ([], "darwin", (20, 30, 0, False, False)),
        (["--simulate", "--titles"], "darwin", (20, 30, 0, True, True)),
        (["-n", "1", "--timeout", "86400", "--threads"], "linux", (1, 86400, 4, False, True)),
    ],
)
def test_the_probe_does_what_was_asked_for(
    options: list[str], platform: str, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*given: object) -> tuple[Run, Run]:
        assert given == asked
        return Run("off", 1, False, True, {"SIGSEGV": 1}, []), Run("auto", 1, True, True, {"ok": 1}, [])

    monkeypatch.setattr(probe, "probe", run)
    monkeypatch.setattr(sys, "platform", platform)
    assert cli.main(["probe", *options]) == 0


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("no luck"), 1, "RuntimeError: no luck. This is a bug, please report it"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "[Errno 13] Permission denied: '/x'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_traceback_reaches_the_user(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(state, "startup", fail)
    assert cli.main(["status"]) == status
    assert capsys.readouterr().err == f"airflow-setproctitle-shim: {message}\n"


@pytest.mark.parametrize("json_or_not", [[], ["--json"]], ids=["text", "JSON"])
def test_errors_are_json_where_json_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], json_or_not: list[str]
) -> None:
    def fail() -> None:
        raise OSError("no luck")

    monkeypatch.setattr(state, "startup", fail)
    assert cli.main(["status", *json_or_not]) == 1
    captured = capsys.readouterr()
    assert captured.err == "airflow-setproctitle-shim: no luck\n"
    if json_or_not:
        assert captured.out.startswith('{\n  "schema": "status/2",\n')
        told = json.loads(captured.out)
        assert told == {"schema": "status/2", "ok": False, "error": "no luck"}
        validate(told)
    else:
        assert captured.out == ""


def test_wrong_usage_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", "--only", "nothing"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told == {"schema": "doctor/2", "ok": False, "error": "wrong usage"}
    schema = json.loads((ROOT / "docs/json-schema/usage.json").read_text())
    for command in ([], ["sitecustomize"]):
        assert cli.main([*command, "--json"]) == 2
        jsonschema.validate(json.loads(capsys.readouterr().out), schema)


def test_what_ends_a_program_ends_it_as_ctrl_c_does_unless_it_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_IGN}  # as nohup does
    monkeypatch.setattr(signal, "getsignal", handlers.get)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    cli.main(["status"])
    assert handlers == {signal.SIGTERM: signal.default_int_handler, signal.SIGHUP: signal.SIG_IGN}


def in_shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of bash, where $SHIM is the command line, with the exit status of the first of a pipe."""
    program = f"{sys.executable} -m {SHIM}"
    script = f"SHIM='{program}'; {command}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", script], check=False, capture_output=True, text=True, env=clean_environ()
    )


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("$SHIM status | true", 0),
        ("$SHIM doctor --list | head -1", 0),
        ("$SHIM doctor --only crash-reports --json | true", 0),
        ("$SHIM probe -n many --json 2>&1 | true", 2),
        ("$SHIM status >&-", 0),
        ("$SHIM status --json >&- 2>&-", 0),
        ("$SHIM probe -n 1 <&- >&- 2>&-", 0),
        ("$SHIM probe -n many >&- 2>&-", 2),
        ("$SHIM probe -n many --json >/dev/full 2>&1", 2),
    ],
)
def test_the_exit_status_does_not_depend_on_the_reader(command: str, status: int) -> None:
    done = in_shell(command)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("command", ["status", "doctor --json", "sitecustomize", "probe -n 1 --json"])
def test_what_cannot_be_written_is_an_error(command: str) -> None:
    done = in_shell(f"$SHIM {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "airflow-setproctitle-shim: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(("name", "shown"), [("caf\udce9", b"caf?.log"), ("ÿ日", b"\\xff\\u65e5.log")])
def test_a_name_that_cannot_be_encoded_is_shown_all_the_same(tmp_path: Path, name: str, shown: bytes) -> None:
    (tmp_path / f"{name}.log").write_text(DEATH)
    done = subprocess.run(
        [sys.executable, "-m", SHIM, "doctor", "--only", "crashes", "--logs", str(tmp_path)],
        check=False,
        capture_output=True,
        env=clean_environ(PYTHONIOENCODING="ascii"),
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert shown in done.stdout


# --- terminal ----------------------------------------------------------------------------------


@pytest.fixture
def trouble(tmp_path: Path) -> list[str]:
    """A command that finds something, in logs with a name that would drive the terminal."""
    (tmp_path / "\033[2Jx.log").write_text(DEATH)
    return ["-m", SHIM, "doctor", "--only", "crashes", "--logs", str(tmp_path)]


def test_other_peoples_names_cannot_drive_the_terminal(trouble: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *trouble], check=False, capture_output=True, text=True, env=clean_environ()
    )
    assert "\033" not in done.stdout and "?[2Jx" in done.stdout
    assert done.stderr == ""


# --- doctor ------------------------------------------------------------------------------------


def validate(data: dict[str, Any]) -> None:
    """Check that JSON is what its schema says. Raises ValidationError."""
    name = data["schema"].partition("/")[0]
    jsonschema.validate(data, json.loads((ROOT / f"docs/json-schema/{name}.json").read_text()))


def test_the_doctors_json_follows_the_schema(trouble: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *trouble[:3], "--json", *trouble[5:]],
        check=False,
        capture_output=True,
        text=True,
        env=clean_environ(),
    )
    data = json.loads(done.stdout)
    validate(data)
    assert done.returncode == 1 and data["ok"] is False
    assert data["checks"] == list(data["looked_at"]) == list(doctor.CHECKS)
    crashes = data["findings"][0]
    assert (crashes["id"], crashes["severity"]) == ("crashes", "error")
    assert crashes["counts"] == {"before": 0, "since": 1, "undated": 0}
    assert [row["since"] for row in crashes["by"]] == [1]
    whole = [Path(read["path"]).parent for read in data["read"] if not read["skipped"]]
    assert whole == [Path(trouble[-1])]


def test_crash_reports_in_json_follow_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    place = str(ROOT / "tests/data/crash-reports")
    assert cli.main(["doctor", "--json", "--only", "crash-reports", "--crash-reports", place]) in (0, 1)
    data = json.loads(capsys.readouterr().out)
    validate(data)
    assert {"setproctitle", "_scproxy", "libpq's GSS"} <= {finding["cause"] for finding in data["findings"]}
    assert len(data["read"]) == len(list(Path(place).iterdir()))


def test_paths_given_twice_are_both_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = [str(path) for path in sorted((ROOT / "tests/data/crash-reports").glob("*.ips"))[:2]]
    logs = [str(tmp_path / "a.log"), str(tmp_path / "b.log")]
    options = []
    for log, report in zip(logs, reports):
        Path(log).write_text(DEATH)
        options += ["--logs", log, "--crash-reports", report]
    cli.main(["doctor", "--json", "--only", "crashes", "--only", "crash-reports", *options])
    data = json.loads(capsys.readouterr().out)
    assert [read["path"] for read in data["read"]] == logs + reports
    assert data["looked_at"]["crash-reports"] == f"read 2 crash reports in {', '.join(reports)}"


@pytest.mark.parametrize("name", ["", "python3.12-kalite2844.ips"], ids=["directory", "file"])
@pytest.mark.parametrize(("installed", "status"), [("2025-01-07T15:12:00", 1), ("2025-01-07T15:13:00", 0)])
def test_no_crash_report_from_before_the_installation_keeps_the_exit_status_at_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    installed: str,
    status: int,
) -> None:
    installed_at = datetime.datetime.fromisoformat(f"{installed}+00:00").timestamp()
    monkeypatch.setattr(state, "installed_at", lambda: installed_at)
    place = str(ROOT / "tests/data/crash-reports" / name)
    assert cli.main(["doctor", "--only", "crash-reports", "--crash-reports", place]) == status
    text = capsys.readouterr().out
    assert "the cause is _scproxy" in text
    assert ("Nothing needs attention in what was looked at." in text) is (status == 0)


def test_reports_of_these_commands_that_lie_in_airflows_home_are_no_deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    (tmp_path / "gunicorn.log").write_text(DEATH)
    place = str(ROOT / "tests/data/crash-reports")
    doctor = ["doctor", "--only", "crashes", "--only", "crash-reports", "--crash-reports", place]
    probe = ["probe", "-n", "1"]
    commands = [doctor, [*doctor, "--json"], ["status"], probe, [*probe, "--json"]]
    for number, command in enumerate(commands):
        cli.main(command)
        (tmp_path / f"report-{number}.log").write_text(capsys.readouterr().out)
    cli.main([*doctor, "--json"])
    told = json.loads(capsys.readouterr().out)
    [crashes] = [finding for finding in told["findings"] if "by" in finding]
    assert crashes["counts"] == {"before": 0, "since": 1, "undated": 0}
    reports = [Path(read["path"]).name for read in told["read"] if not read["skipped"] and read["bytes"]]
    assert {f"report-{number}.log" for number in range(len(commands))} < {*reports}


def test_the_checks_are_listed_with_what_they_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(doctor.CHECKS)
    assert all(line.endswith("?") for line in lines)
    assert cli.main(["doctor", "--list", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    validate(data)
    assert data["checks"] == list(doctor.CHECKS)


def test_that_nothing_needs_attention_is_said_of_what_was_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text("2026-11-22T10:00:00Z all is well\n")
    assert cli.main(["doctor", "--only", "crashes", "--logs", str(tmp_path)]) == 0
    first, second, table, *_ = capsys.readouterr().out.splitlines()
    assert (first, second) == ("Nothing needs attention in what was looked at.", "looked at:")
    assert table.startswith("  crashes       read 1 log")


@pytest.mark.parametrize("titled", [0, 7])
@pytest.mark.parametrize("tested", [True, False])
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_probe_tells_what_it_did_and_what_not(
    titled: int,
    tested: bool,
    platform: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listing = [f"{number} probe: worker {number}" for number in range(titled)]
    runs = Run("off", 2, False, True, {"SIGSEGV": 2}, []), Run("auto", 2, True, tested, {"ok": 2}, listing)
    monkeypatch.setattr(probe, "probe", lambda *_: runs)
    monkeypatch.setattr(packages, "installed", list)
    monkeypatch.setattr(packages, "is_there", lambda: True)
    monkeypatch.setattr(sys, "platform", platform)
    assert cli.main(["probe"]) == 0
    simulated = ["Simulated: a stand-in dies after fork as setproctitle does on macOS."]
    assert capsys.readouterr().out.splitlines() == [
        *(simulated if platform == "linux" else []),
        "  without the shim: 2 of 2 children lost (2 SIGSEGV)",
        "  with the shim:    0 of 2 children lost",
        *(f"    {line}" for line in listing[:5]),
        *([] if tested else [f"The startup file itself was not tested: run {state.COMMAND} status"]),
        "nothing installed here uses setproctitle: is this the environment your workers run in?",
        "The shim saved every child.",
    ]
    assert cli.main(["probe", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    validate(data)
    assert data == {
        "schema": "probe/2",
        "ok": True,
        "simulated": platform == "linux",
        "verdict": "The shim saved every child.",
        "without": asdict(runs[0]),
        "with": asdict(runs[1]),
        "used_by": {},
    }


def test_status_tells_people_and_programs_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    off = Answer("off: so it is", [Finding("error", "it is off", "switch it on")])
    monkeypatch.setattr(state, "startup", lambda: off)
    monkeypatch.setattr(state, "facts", lambda: {"python": "3"})
    monkeypatch.setattr(packages, "installed", lambda: [packages.Package("rq", "1", False)])
    monkeypatch.setattr(packages, "is_there", lambda: False)
    assert cli.main(["status"]) == 1
    rq = "setproctitle is not installed, and does not need to be: rq 1 calls it only where it is"
    nothing = "nothing to do: the shim is not needed for them"
    assert capsys.readouterr().out.splitlines() == [
        "off: so it is",
        *("error: it is off", "  -> switch it on", f"note: {rq}", f"  -> {nothing}", ""),
        *("  python        3", "  used by       rq 1 calls it"),
    ]
    assert cli.main(["status", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    plain: dict[str, list[str]] = {"sources": [], "details": []}
    assert data == {
        "schema": "status/2",
        "ok": False,
        "on": False,
        "why": "off: so it is",
        "findings": [
            {
                "id": "startup",
                "severity": "error",
                "evidence": "it is off",
                "remedy": "switch it on",
                **plain,
            },
            {"id": "used-by", "severity": "note", "evidence": rq, "remedy": nothing, **plain},
        ],
        "used_by": {"rq 1": "calls it"},
        "facts": {"python": "3", "used by": "rq 1 calls it"},
    }


@pytest.mark.parametrize(("count", "more"), [(3, []), (4, ["... and 1 more, see --json"])])
def test_three_details_are_shown_and_the_others_counted(
    count: int, more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    details = tuple(f"detail {number}" for number in range(count))
    answer = Answer("all", [Finding("note", "It is so.", "do this", ("a/b",), details)])
    monkeypatch.setitem(doctor.CHECKS, "edited", ("?", lambda _: answer))
    assert cli.main(["doctor", "--only", "edited"]) == 0
    told = [*details[:3], *more, "https://github.com/a/b"]
    assert capsys.readouterr().out.splitlines() == [
        "Nothing needs attention in what was looked at.",
        *("note: It is so.", "  -> do this"),
        *(f"     {line}" for line in told),
        *("looked at:", "  edited        all"),
    ]


def test_the_worst_comes_first(
    trouble: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is installed beside the tests changes what is found.
    monkeypatch.setattr(packages, "installed", list)
    assert cli.main([*trouble[2:], "--only", "used-by"]) == 1
    lines = capsys.readouterr().out.splitlines()
    labels = [line.partition(":")[0] for line in lines if line.startswith(("error", "note", "looked at"))]
    assert labels == ["error", "note", "looked at"]


# --- sitecustomize -----------------------------------------------------------------------------


def test_the_template_is_one_file_however_the_package_is_installed(
    make_venv: Callable[..., Venv], tmp_path: Path
) -> None:
    installed = make_venv("setproctitle").run("-m", SHIM, "sitecustomize").stdout
    editable = Venv.make(tmp_path / "venv")
    editable.install("--no-deps", "--editable", str(ROOT))
    editable.install("importlib-metadata")
    assert installed == editable.run("-m", SHIM, "sitecustomize").stdout == TEMPLATE.read_text()
    assert len(list(ROOT.glob("src/**/as_site_customize.py"))) == 1


def test_a_wheel_built_from_the_source_distribution_has_the_template(tmp_path: Path) -> None:
    uv("build", "--quiet", "--sdist", "--out-dir", str(tmp_path), str(ROOT))
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert any(
            name.endswith("airflow_setproctitle_shim/as_site_customize.py") for name in file.getnames()
        )
    uv("build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(archive))
    venv = Venv.make(tmp_path / "venv")
    venv.install(str(next(tmp_path.glob("*.whl"))))
    assert venv.run("-m", SHIM, "sitecustomize").stdout == TEMPLATE.read_text()
