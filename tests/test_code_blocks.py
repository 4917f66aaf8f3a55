"""Each code block of each page is run as it stands: by a test here, or by what ELSEWHERE names.

Only what stands for something of the reader's is replaced: /path/to/your/python, PID and the like.
"""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.environments import ROOT, UV, Venv, clean_environ, write
from support.processes import free_port, running, wait_for
from test_docs import DOCUMENTS


class Block(NamedTuple):
    """A code block: the page that it stands on, and its text."""

    page: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return a page's code blocks, fenced or indented, without their indentation."""
    fenced, indented = False, False
    found: list[list[str]] = []
    before = ""
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            if fenced:
                found.append([])
        elif fenced:
            found[-1].append(line)
        elif line.startswith("    ") and (indented or not before or before.endswith("-->")):
            if not indented:
                found.append([])
            found[-1].append(line[4:])
        indented = not fenced and line.startswith("    ")
        before = line.strip()
    name = page.relative_to(ROOT).as_posix()
    return [Block(name, "\n".join(lines) + "\n") for lines in found]


BLOCKS = [block for page in DOCUMENTS for block in blocks(page)]
RUN_HERE: list[Block] = []


def copied(page: str, begins: str) -> pytest.MarkDecorator:
    """Give a test, as `text`, the one block of a page that begins so."""
    found = [block for block in BLOCKS if block.page == page and block.text.startswith(begins)]
    assert len(found) == 1, f"{page} has {len(found)} blocks that begin with {begins!r}"
    # The same may stand on another page.
    RUN_HERE.extend(block for block in BLOCKS if block.text == found[0].text)
    return pytest.mark.parametrize("text", [pytest.param(found[0].text, id=page)])


class Elsewhere(NamedTuple):
    """What runs a block: a test or a file of the repository, "" for a picture that nobody can run."""

    page: str
    begins: str
    by: str


# fmt: off
ELSEWHERE = [
    Elsewhere("README.md", "python3 -m venv venv && venv/bin/python -m pip install . ", by=".ci/run"),
    Elsewhere("README.md", "python3 -m venv venv && venv/bin/python -m pip install '.[test]'", by=".ci/run"),
    Elsewhere("CONTRIBUTING.md", "src/airflow_setproctitle_shim.pth", by=""),
    Elsewhere("SECURITY.md", "import sys;",
              by="tests/test_release.py::test_the_security_page_quotes_the_startup_file_in_full"),
    # The first line is CONTRIBUTING's, the second is one of many, the third one row of a table.
    Elsewhere("docs/proof.md", "python3 -m venv venv", by="tests/test_macos_code.py"),
    # Whole runs take most of an hour; .ci/run has a short one.
    Elsewhere("benchmarks/README.md", "python benchmarks/run.py", by=".ci/run"),
    *(Elsewhere("docs/project-files.md", begins, by=f"tests/test_project_files.py::{test}") for begins, test in {
        "airflow-setproctitle-shim @ file:": "test_a_clone_is_a_requirement",
        "pip wheel": "test_a_wheel_is_made_of_a_clone_and_found_beside_the_project",
        "airflow-setproctitle-shim; ": "test_the_line_brings_the_package_to_a_mac_and_to_no_other_system",
        "[project]": "test_the_line_brings_the_package_to_a_mac_and_to_no_other_system",
        "uv add": "test_uv_adds_it",  # its second line: test_poetry_adds_it
        "[testenv]": "test_the_line_is_a_requirement_that_holds_on_macos_only",
        "import nox": "test_the_line_is_a_requirement_that_holds_on_macos_only",
        "pipx inject": "test_pipx_injects_it",  # and test_uv_tool_installs_it_beside_a_program
        "dependencies:": "test_the_line_is_a_requirement_that_holds_on_macos_only",
        "pip install -c": "test_constraints_that_do_not_name_it_hold",
        "uv pip compile": "test_a_lock_made_on_linux_drops_the_line_unless_it_is_universal",
        "pip install -r": "test_pip_reads_the_line_beside_a_lock",
        "pip install --upgrade": "test_pip_upgrades_it",
    }.items()),
]
# fmt: on


def test_each_block_is_run_by_something() -> None:
    assert len(BLOCKS) > 30
    for row in ELSEWHERE:
        file, _, test = row.by.partition("::")
        assert (ROOT / file).exists(), row
        assert not test or f"\ndef {test}(" in (ROOT / file).read_text("utf-8"), row
        assert [b for b in BLOCKS if b.page == row.page and b.text.startswith(row.begins)], row
    rows = [(row.page, row.begins) for row in ELSEWHERE]
    nobody = [
        block
        for block in BLOCKS
        if block not in RUN_HERE
        and not any(block.page == page and block.text.startswith(begins) for page, begins in rows)
    ]
    assert not nobody


# --- a reader's shell


class Shell:
    """A reader's shell, in a directory of its own: the environment's programs come first on PATH."""

    def __init__(self, venv: Venv, directory: Path) -> None:
        self.venv, self.directory = venv, directory
        self.programs = directory / "bin"
        self.programs.mkdir(parents=True)
        path = [str(self.programs), str(venv.path / "bin"), os.environ["PATH"]]
        home = {"HOME": str(directory), "AIRFLOW_HOME": str(directory)}
        self.environ = clean_environ(PATH=os.pathsep.join(path), **home)

    def run(
        self, text: str, stdin: str = "", **stands_for: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a block; keywords are what stands for something of the reader's, and what for."""
        names = {
            "/path/to/your/python": shlex.quote(str(self.venv.python)),
            "/path/to/the/clone": str(ROOT),
            **stands_for,
        }
        for name, value in names.items():
            text = text.replace(name, value)
        return subprocess.run(
            ["sh", "-c", text],
            cwd=self.directory,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def program(self, name: str, text: str) -> None:
        """Put a program on the PATH that only a Mac, or a whole Airflow, has."""
        write(self.programs / name, text).chmod(0o755)


@pytest.fixture
def on_a_mac(make_venv: Callable[..., Venv], tmp_path: Path) -> Shell:
    """An environment with the shim and gunicorn, which sees a Mac."""
    return Shell(make_venv("gunicorn", "setproctitle"), tmp_path / "mac")


@pytest.fixture
def with_pip(tmp_path: Path) -> Shell:
    """A new environment with pip; it sees this system, as pip does not work on a Mac that is played."""
    venv = Venv.make(tmp_path / "venv")
    venv.install("pip")
    return Shell(venv, tmp_path / "pip")


# --- README.md


@copied("README.md", "/path/to/your/python -m airflow_setproctitle_shim status")
def test_status_says_what_the_readme_shows(text: str, on_a_mac: Shell) -> None:
    [shown] = [block.text for block in BLOCKS if block.text.startswith("ON: ")]
    python = str(on_a_mac.venv.python)
    version = ".".join(map(str, sys.version_info[:3]))
    expected = shown.replace("/path/to/your/python", python).replace("3.11.7", version)
    assert on_a_mac.run(text).stdout == expected


RUN_HERE += [block for block in BLOCKS if block.text.startswith("ON: ")]


@pytest.mark.slow
@copied("README.md", "/path/to/your/python -m pip install /path/to/the/clone")
def test_pip_and_uv_install_from_a_clone(text: str, with_pip: Shell) -> None:
    with_pip.program("uv", f'#!/bin/sh\nexec {shlex.quote(str(UV))} "$@"\n')
    by_pip, by_uv = text.splitlines()
    for command in (by_pip, by_uv):
        done = with_pip.run(command)
        assert done.returncode == 0, done.stderr
        assert with_pip.venv.evaluate(
            "import airflow_setproctitle_shim as it; print(it.__version__)"
        )
        with_pip.venv.run("-m", "pip", "uninstall", "-q", "-y", "airflow-setproctitle-shim")


@pytest.mark.slow
@copied("README.md", "lsof -p PID")
def test_a_running_service_is_checked_and_the_shim_is_switched_off_and_removed(
    text: str, on_a_mac: Shell, with_pip: Shell
) -> None:
    if shutil.which("lsof") is None:
        pytest.skip("lsof is not installed")
    check, off, uninstall = text.splitlines()
    write(on_a_mac.directory / "app.py", "def application(*_):\n    return []\n")

    def lines() -> str:
        port = str(free_port())
        gunicorn = [str(on_a_mac.venv.python), "-m", "gunicorn"]
        command = [*gunicorn, "-b", f"127.0.0.1:{port}", "app:application"]
        log = on_a_mac.directory / f"{port}.log"
        log.touch()
        with running(command, log, on_a_mac.environ) as service:
            wait_for("gunicorn listens", lambda: b"Listening at" in log.read_bytes(), 60)
            said = on_a_mac.run(check, PID=str(service.pid)).stdout
            assert service.poll() is None, log.read_text()
            return said

    assert lines() == ""
    variable, _, value = off.removeprefix("export ").partition("=")
    on_a_mac.environ[variable] = value
    assert "/_setproctitle." in lines()

    with_pip.run("/path/to/your/python -m pip install -q /path/to/the/clone")
    assert with_pip.run(uninstall, stdin="y\n").returncode == 0
    assert with_pip.venv.run("-c", "import airflow_setproctitle_shim", check=False).returncode


# --- the other pages


@pytest.mark.slow
@copied("CONTRIBUTING.md", "python3 -m venv venv")
def test_a_newcomer_sets_it_up(text: str, with_pip: Shell) -> None:
    clone = ["git", "clone", "-q", str(ROOT), str(with_pip.directory / "clone")]
    subprocess.run(clone, check=True)
    done = with_pip.run(f"cd clone\n{text}venv/bin/python -m pytest --version && ls venv/bin")
    assert done.returncode == 0, done.stderr
    assert {"nox", "uv", "airflow-setproctitle-shim"} <= {*done.stdout.split()}


@copied("docs/troubleshooting.md", "/path/to/your/python -m airflow_setproctitle_shim status")
def test_the_first_two_questions_are_answered(text: str, on_a_mac: Shell) -> None:
    done = on_a_mac.run(text)
    assert done.stdout.count("ON: ") == 2 and "looked at" in done.stdout
    assert not done.stderr


REPORT = ROOT / "tests/data/crash-reports/python3.12-airflow45124.ips"


@copied("docs/command-line.md", "pbpaste | ")
def test_a_report_that_was_copied_is_read(text: str, on_a_mac: Shell) -> None:
    on_a_mac.program("pbpaste", f"#!/bin/sh\ncat {shlex.quote(str(REPORT))}\n")
    done = on_a_mac.run(text)
    assert done.returncode == 1 and "setproctitle" in done.stdout.partition("looked at")[0]


@copied("docs/switching-on.md", "python -m airflow_setproctitle_shim sitecustomize")
def test_a_sitecustomize_is_made_and_imported(text: str, on_a_mac: Shell) -> None:
    ours = on_a_mac.directory / "ours"
    ours.mkdir()
    # Afterwards sitecustomize is the one that ours hides, where the system has one.
    show = "python -v -c pass 2>&1 | grep -a -e sitecustomize"
    done = on_a_mac.run(text + show, DIR=shlex.quote(str(ours)))
    assert str(ours / "sitecustomize.py") in done.stdout, done.stderr


@copied("docs/switching-on.md", "import airflow_setproctitle_shim")
def test_it_is_switched_on_by_hand(text: str, make_venv: Callable[..., Venv]) -> None:
    code = f"{text}import setproctitle; print(setproctitle.__file__)"
    assert make_venv(macos=False).evaluate(code).endswith("replacement.py")


# --- docs/troubleshooting.md


@copied("docs/troubleshooting.md", "<?xml")
def test_the_file_for_launchd_is_a_service_with_a_variable(text: str) -> None:
    service = plistlib.loads(text.encode())
    assert service["EnvironmentVariables"] == {"NO_PROXY": "*"}
    assert service["ProgramArguments"] == ["/path/to/bin/airflow", "standalone"]


@copied("docs/troubleshooting.md", "launchctl bootout")
def test_the_commands_for_launchd_name_that_service(text: str, on_a_mac: Shell) -> None:
    [service] = [plistlib.loads(b.text.encode()) for b in BLOCKS if b.text.startswith("<?xml")]
    on_a_mac.program("launchctl", '#!/bin/sh\necho "$@"\n')
    said = on_a_mac.run(text).stdout.splitlines()
    name = f"gui/{os.getuid()}"
    file = f"{on_a_mac.directory}/Library/LaunchAgents/{service['Label']}.plist"
    assert said == [f"bootout {name}/{service['Label']}", f"bootstrap {name} {file}"]


# What a part of Airflow does: a child dies, and Airflow says nothing of it.
AIRFLOW = """#!/bin/sh
exec {python} - <<'END'
import os, signal
if pid := os.fork():
    os.waitpid(pid, 0)
else:
    os.kill(os.getpid(), signal.SIGSEGV)
END
"""


@copied("docs/troubleshooting.md", "PYTHONFAULTHANDLER=1 airflow standalone")
def test_a_dump_is_kept_and_read(text: str, on_a_mac: Shell) -> None:
    on_a_mac.program("airflow", AIRFLOW.format(python=shlex.quote(str(on_a_mac.venv.python))))
    done = on_a_mac.run(text)
    assert done.returncode == 1 and "Segmentation fault" in done.stdout, done.stdout


@pytest.mark.slow
@copied("docs/troubleshooting.md", "python -m pip install processtitle")
def test_titles_are_shown_in_ps(text: str, with_pip: Shell) -> None:
    if sys.version_info < (3, 10):
        pytest.skip("processtitle needs Python 3.10")
    with_pip.run("/path/to/your/python -m pip install -q /path/to/the/clone")
    done = with_pip.run(text)
    assert "probe: worker 1" in done.stdout and done.returncode == 0, done.stdout


CONSTANTS = "print(AUTO, PIPELINE_INLETS, PIPELINE_OUTLETS)"


@copied("docs/troubleshooting.md", "from airflow_setproctitle_shim.lineage import")
def test_own_code_has_the_constants(text: str, on_a_mac: Shell) -> None:
    assert on_a_mac.venv.evaluate(text + CONSTANTS) == "auto pipeline_inlets pipeline_outlets"


@copied("docs/troubleshooting.md", "export AIRFLOW_SETPROCTITLE_SHIM_LINEAGE=1")
def test_a_plugin_has_the_constants(text: str, on_a_mac: Shell) -> None:
    for name in ("__init__.py", "lineage.py"):
        write(on_a_mac.directory / "airflow" / name, "")
    code = "import airflow_setproctitle_shim.airflow, airflow.lineage as it; print(it.AUTO)"
    assert on_a_mac.run(f"{text}python -c {shlex.quote(code)}").stdout == "auto\n"


@pytest.mark.slow
@copied(
    "docs/troubleshooting.md", "python -m pip install --force-reinstall --no-deps apache-airflow"
)
def test_what_was_edited_or_deleted_comes_back(text: str, with_pip: Shell) -> None:
    done = with_pip.run(text)
    found = with_pip.run("python -m pip list").stdout
    assert re.search(r"(?m)^apache-airflow +2\.10\.5$", found) and "setproctitle" in found
    assert "which is not installed" in done.stdout
