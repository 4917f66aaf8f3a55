"""The command line: what it prints, and its exit status, whoever reads it and whatever is broken."""

from __future__ import annotations

import io
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.environments import ROOT, Venv, clean_environ, write

import airflow_setproctitle_shim as shim
from airflow_setproctitle_shim.diagnosis import cli

SHIM = "airflow_setproctitle_shim"
COMMANDS = ("status", "probe", "doctor", "sitecustomize")
TEMPLATE = ROOT / "sitecustomize_template/sitecustomize.py"
DEATH = "[WARNING] Worker (pid:7) was sent SIGSEGV!\n"
WRONG = [
    ("stauts", "stauts"),
    ("status extra", "extra"),
    ("probe -n many", "many"),
    ("probe -n", "-n"),
    ("doctor nowhere.log", "nowhere.log"),
    ("doctor --logs a.log", "--logs"),
]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["status", "--help"]])
def test_the_help_names_each_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    told = capsys.readouterr()
    assert all(re.search(rf"(?m)^  {command} ", told.out) for command in COMMANDS)
    assert (told.out, told.err) == (cli.HELP, "")
    assert max(map(len, told.out.splitlines())) <= 80


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_printed(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([option]) == 0
    assert capsys.readouterr().out.strip() == shim.__version__


@pytest.mark.parametrize(("command", "named"), WRONG)
def test_wrong_usage_is_named_for_people_and_for_programs(
    command: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command.split()) == 2
    told = capsys.readouterr()
    assert named in told.err and "--help" in told.err
    assert cli.main([*command.split(), "--json"]) == 2
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is False and (named in data["error"] or command == "probe -n")


def in_shell(script: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, where $SHIM is the command line; its exit status is that of the first of a pipe."""
    environ = clean_environ(
        HOME=str(directory), AIRFLOW_HOME=str(directory), PYTHON=sys.executable, **variables
    )
    script = f'SHIM() {{ "$PYTHON" -m {SHIM} "$@"; }}; {script}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env=environ,
        cwd=directory,
    )


def test_status_and_doctor_write_no_file(tmp_path: Path) -> None:
    log = write(tmp_path / "logs/a.log", DEATH)
    before = sorted(tmp_path.rglob("*")), log.read_text(), log.stat().st_mtime_ns
    assert (
        in_shell("SHIM status --json; SHIM doctor; SHIM doctor --json logs", tmp_path).returncode
        == 1
    )
    assert (sorted(tmp_path.rglob("*")), log.read_text(), log.stat().st_mtime_ns) == before


READERS = ["2>&1 | true", ">&-", "<&- >&- 2>&-", ">/dev/full 2>&1"]


@pytest.mark.parametrize("reader", READERS)
def test_the_exit_status_does_not_depend_on_the_reader(reader: str, tmp_path: Path) -> None:
    if "full" in reader and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    write(tmp_path / "a", DEATH)
    for command, status in {
        "status": 0,
        "doctor --json a": 1,
        "-V": 0,
        "probe -n x --json": 2,
    }.items():
        done = in_shell(f"SHIM {command} {reader}", tmp_path)
        assert done.returncode == status, command
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (BrokenPipeError("its reader left"), 0, ""),
        (OSError("it is full"), 1, "airflow-setproctitle-shim: cannot print: it is full\n"),
    ],
    ids=["left", "full"],
)
def test_a_file_that_could_not_be_printed_is_a_failure_but_where_its_reader_left(
    error: OSError,
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(io.StringIO):
        def flush(self) -> None:
            raise error

    monkeypatch.setattr(sys, "stdout", Broken())
    assert cli.main(["sitecustomize"]) == status
    assert capsys.readouterr().err == says


INTERRUPTED = f"""
import os, runpy, signal, sys
signal.signal(signal.SIGINT, eval(sys.argv.pop(1)))
begins = sys.argv.pop(1)
class Interrupting:
    @staticmethod
    def find_spec(name, *_):
        return name == begins and os.kill(os.getpid(), signal.SIGINT) or None
sys.meta_path.insert(0, Interrupting)
runpy.run_module({SHIM!r}, run_name="__main__")
"""


@pytest.mark.parametrize("module", ["cli", "status", "environment"])
def test_ctrl_c_ends_it_without_a_traceback(module: str) -> None:
    begins = f"{SHIM}.diagnosis.{module}"
    handler = "signal.default_int_handler"
    command = [sys.executable, "-c", INTERRUPTED, handler, begins, "status"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    """As in a shell's background jobs."""
    begins = f"{SHIM}.diagnosis.cli"
    command = [sys.executable, "-c", INTERRUPTED, "signal.SIG_IGN", begins, "--version"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, shim.__version__)


FIRST = f"""
import runpy, sys
sys.path.insert(0, "/first")
try: runpy.run_module({SHIM!r}, run_name="__main__")
except SystemExit: print(sys.path[0])
"""


def test_no_other_directory_than_the_working_one_is_taken_off_the_path() -> None:
    command = [sys.executable, "-c", FIRST, "--version"]
    assert subprocess.check_output(command, text=True).split() == [shim.__version__, "/first"]


LOADED = "import sys; print(*sys.modules)"


def test_no_module_of_the_working_directory_is_run(tmp_path: Path) -> None:
    """Whatever module of the standard library it shadows, but for what `python -m` itself loads."""
    write(tmp_path / "empty/__main__.py", LOADED)
    loaded = in_shell('"$PYTHON" -m empty', tmp_path).stdout.split()
    modules = pkgutil.iter_modules([os.path.dirname(os.__file__)])
    traps = {module.name for module in modules} - {*loaded}
    assert {"getopt", "json", "shlex"} <= traps
    for name in (*traps, "importlib_metadata", "wrapt"):
        write(tmp_path / f"{name}.py", f"raise SystemExit('{name} of the working directory')\n")
    done = in_shell("SHIM status --json", tmp_path)
    assert (json.loads(done.stdout)["shim"], done.stderr) == (shim.__version__, "")


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy does not start there")
def test_it_runs_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = in_shell('rmdir "$PWD"; SHIM --version', gone)
    assert (done.stdout.strip(), done.stderr) == (shim.__version__, "")


def test_other_peoples_names_cannot_drive_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write(tmp_path / "\033[2Jx.log", f"\033]0;title\a {DEATH}")
    assert cli.main(["doctor", str(log)]) == 1
    told = capsys.readouterr().out
    assert "\033" not in told and "\a" not in told and "?[2Jx" in told


BROKEN = {
    "missing": "raise ModuleNotFoundError(__name__)",
    "fails": "import sys; sys.no_such_name",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("package", ["importlib_metadata", "wrapt"])
def test_a_broken_dependency_costs_no_command_more_than_what_needs_it(
    package: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / f"broken/{package}.py", BROKEN[how])
    write(tmp_path / "a.log", DEATH)
    variables = {"PYTHONPATH": str(tmp_path / "broken")}
    needed = package == "importlib_metadata"
    done = in_shell("SHIM status", tmp_path, **variables)
    assert (done.returncode, done.stderr) == (int(needed), "")
    assert ("importlib_metadata is broken" in done.stdout and "install" in done.stdout) is needed
    done = in_shell("SHIM doctor a.log", tmp_path, **variables)
    assert (done.returncode, done.stderr) == (1, "") and "was sent SIGSEGV!" in done.stdout
    assert in_shell("SHIM sitecustomize", tmp_path, **variables).stdout == TEMPLATE.read_text()
    if how == "missing":
        done = in_shell("SHIM probe -n 1", tmp_path, **variables)
        assert done.returncode == int(needed) and "Traceback" not in done.stderr


def test_the_template_is_one_file_however_the_package_is_installed(
    make_venv: Callable[..., Venv],
) -> None:
    assert make_venv("setproctitle").run("-m", SHIM, "sitecustomize").stdout == TEMPLATE.read_text()
    assert len(list(ROOT.glob("src/**/as_site_customize.py"))) == 1
