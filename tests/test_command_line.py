"""The command line as people meet it: usage, terminals, pipes, and the sitecustomize command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from environments import ROOT, Venv, clean_environ, uv

from airflow_setproctitle_shim import __version__
from airflow_setproctitle_shim.diagnosis import cli, doctor

SHIM = "airflow_setproctitle_shim"
TEMPLATE = ROOT / "sitecustomize_template/sitecustomize.py"


def on_terminal(*command: str, **variables: str) -> str:
    """Run a command on a terminal of 80 columns; return what the terminal got."""
    leader, follower = pty.openpty()
    environ = clean_environ(COLUMNS="80", TERM="xterm", **variables)
    environ.pop("NO_COLOR", None) if "NO_COLOR" not in variables else None
    process = subprocess.Popen(
        [sys.executable, *command], stdin=follower, stdout=follower, stderr=follower, env=environ
    )
    os.close(follower)
    received = b""
    try:
        while data := os.read(leader, 65536):
            received += data
    except OSError:  # The other end is closed: that is how Linux says so.
        pass
    finally:
        os.close(leader)
        process.wait(60)
    return received.decode()


# --- usage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["probe", "-n", "0"],
        ["probe", "-n", "many"],
        ["probe", "--timeout", "0"],
        ["probe", "--timeout", "nan"],
        ["probe", "--method", "vfork"],
        ["doctor", "--only", "nothing"],
        ["doctor", "--logs", "/no/such/directory"],
        ["doctor", "--crash-reports", "/no/such/directory"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_says_what_is_right(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("usage: airflow-setproctitle-shim")


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


def test_help_names_every_command_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command}" in text for command in ("status", "probe", "doctor", "sitecustomize"))
    assert "2 wrong usage" in text


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("no luck"), 1, "RuntimeError: no luck. This is a bug, please report it"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: '/x'"),
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

    monkeypatch.setattr(doctor, "status", fail)
    assert cli.main(["status"]) == status
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m {SHIM} doctor --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, env=clean_environ()
    )
    assert done.stderr == ""


@pytest.mark.parametrize(("name", "shown"), [("caf\udce9", b"caf?.log"), ("ÿ日", b"\\xff\\u65e5.log")])
def test_a_name_that_cannot_be_encoded_is_shown_all_the_same(tmp_path: Path, name: str, shown: bytes) -> None:
    (tmp_path / f"{name}.log").write_text("was sent SIGSEGV!\n")
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
    (tmp_path / "\033[2Jx.log").write_text("was sent SIGSEGV!\n")
    return ["-m", SHIM, "doctor", "--only", "crashes", "--logs", str(tmp_path)]


def test_on_a_terminal_the_severity_is_coloured_and_progress_is_shown_and_taken_back(
    trouble: list[str],
) -> None:
    text = on_terminal(*trouble)
    assert "\033[31merror\033[m: 1 death" in text
    assert "\r\033[Kreading " in text
    assert text.index("\r\033[Kreading ") < text.rindex("\r\033[K") < text.index("error")


def test_no_color_is_respected(trouble: list[str]) -> None:
    assert "\033[31m" not in on_terminal(*trouble, NO_COLOR="1")


def test_into_a_pipe_there_is_neither_colour_nor_progress(trouble: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *trouble], check=False, capture_output=True, text=True, env=clean_environ()
    )
    assert "\033" not in done.stdout
    assert done.stderr == ""


def test_other_peoples_names_cannot_drive_the_terminal(trouble: list[str]) -> None:
    assert "\033[2J" not in on_terminal(*trouble)


def test_the_probe_shows_what_it_is_doing() -> None:
    text = on_terminal("-m", SHIM, "probe", "-n", "1")
    assert "\r\033[K1 children without the shim" in text


def test_sentences_fit_80_columns(trouble: list[str]) -> None:
    for line in on_terminal(*trouble, NO_COLOR="1").splitlines():
        sentence = not line.startswith(("  -> ", "     ")) and "\033" not in line
        assert not sentence or len(line) <= 80


# --- doctor ------------------------------------------------------------------------------------


def test_the_doctors_json_follows_the_schema(trouble: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *trouble[:3], "--json", *trouble[5:]],
        check=False,
        capture_output=True,
        text=True,
        env=clean_environ(),
    )
    data = json.loads(done.stdout)
    jsonschema.validate(data, json.loads((ROOT / "docs/json-schema/doctor.json").read_text()))
    assert done.returncode == 1 and data["ok"] is False
    assert data["checks"] == list(doctor.CHECKS)
    assert data["findings"][0]["id"] == "crashes"


def test_the_checks_are_listed_with_what_they_look_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(doctor.CHECKS)
    assert all(len(line.split()) > 3 for line in lines)


def test_nothing_found_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--only", "crashes", "--logs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing needs attention (1 checks made).\n"


# --- sitecustomize -----------------------------------------------------------------------------


def test_the_template_is_one_file_however_the_package_is_installed(
    make_venv: Callable[..., Venv], tmp_path: Path
) -> None:
    installed = make_venv("setproctitle").run("-m", SHIM, "sitecustomize").stdout
    editable = Venv.make(tmp_path / "venv")
    editable.install("--no-deps", "--editable", str(ROOT))
    editable.install("importlib-metadata")
    assert installed == editable.run("-m", SHIM, "sitecustomize").stdout == TEMPLATE.read_text()
    assert len(list(ROOT.glob("src/**/as_sitecustomize.py"))) == 1


def test_a_wheel_built_from_the_source_distribution_has_the_template(tmp_path: Path) -> None:
    uv("build", "--quiet", "--sdist", "--out-dir", str(tmp_path), str(ROOT))
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert any(name.endswith("airflow_setproctitle_shim/as_sitecustomize.py") for name in file.getnames())
    uv("build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(archive))
    venv = Venv.make(tmp_path / "venv")
    venv.install(str(next(tmp_path.glob("*.whl"))))
    assert venv.run("-m", SHIM, "sitecustomize").stdout == TEMPLATE.read_text()


def test_it_is_written_where_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sitecustomize", "--write", str(tmp_path)]) == 0
    assert (tmp_path / "sitecustomize.py").read_text() == TEMPLATE.read_text()
    assert capsys.readouterr().out == f"wrote {tmp_path / 'sitecustomize.py'}\n"


def test_a_file_that_is_there_is_overwritten_by_force_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sitecustomize.py"
    path.write_text("mine")
    assert cli.main(["sitecustomize", "--write", str(tmp_path)]) == 1
    assert path.read_text() == "mine"
    assert f"{path} exists; --force overwrites it" in capsys.readouterr().err
    assert cli.main(["sitecustomize", "--write", str(tmp_path), "--force"]) == 0
    assert path.read_text() == TEMPLATE.read_text()


def test_the_directory_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sitecustomize", "--write", str(tmp_path / "missing")]) == 1
    assert str(tmp_path / "missing") in capsys.readouterr().err
