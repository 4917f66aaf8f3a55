"""What the macOS code of setproctitle and processtitle does, run here; only Apple's functions are simulated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.consumers.harness import NativeCode
from support.environments import ROOT, SWITCH, Venv

pytest.importorskip("lief", reason="needs the dependency group macos-code")
pytest.importorskip("unicorn", reason="needs the dependency group macos-code")

from support.macos_code import table

pytestmark = pytest.mark.slow


def test_each_release_calls_what_the_page_says_and_a_newer_one_what_the_last_did() -> None:
    rows, page = table.everything(), table.published()
    known = {re.sub(r" [\d.]+", "", release): calls for release, calls in page.items()}
    for row in rows:
        expected = page.get(row.release) or known[re.sub(r" [\d.]+", "", row.release)]
        again = f"python tests/support/macos_code/table.py -v '{row.release.partition(',')[0].replace(' ', '==')}'"
        assert row.calls == expected, (
            f"{' | '.join(row.cells())}\ndiffers from docs/proof.md; see {again}"
        )
    assert page.keys() <= {row.release for row in rows}

    found = {
        row.release.rpartition(" ")[2]: "".join(row.calls)
        for row in rows
        if "fork_safe" in row.release
    }
    assert "set" in found["fork_safe_only=False"], "the emulator no longer tells"
    assert not re.search(r"\d", found["fork_safe_only=True"])


# --- the code in a real Python


MULTIPROCESSING = """
import multiprocessing, os, subprocess, sys
from setproctitle import setproctitle

def show(title):
    setproctitle(title)
    command = ["ps", "-ww", "-o", "args=", "-p", str(os.getpid())]
    print(subprocess.check_output(command, text=True).strip(), flush=True)

if __name__ == "__main__":
    show("the parent")
    child = multiprocessing.get_context("fork").Process(target=show, args=["the child"])
    child.start()
    child.join()
    print(child.exitcode)
"""


def run(
    venv: Venv, native: NativeCode, log: Path, code: str, **variables: str
) -> tuple[str, Counter[str]]:
    """Run code with the macOS code in reach; return what it printed and how often what happened in that code."""
    log.write_text("")
    printed = venv.evaluate(
        code, PYTHONPATH=str(native.path), NATIVE_CODE_LOG=str(log), **variables
    )
    return printed, Counter(line.split()[1] for line in log.read_text().splitlines())


@pytest.fixture
def native(macos_code: NativeCode) -> NativeCode:
    return macos_code if macos_code.tells else pytest.skip("a Mac has the real one")


@pytest.mark.parametrize(
    ("shim", "ps", "events"),
    [
        ("off", ["the parent", "-11"], {"loaded": 1, "called": 35, "killed": 1}),
        ("auto", ["python", "python", "0"], {}),
        ("titles", ["the parent", "the child", "0"], {"loaded": 1}),
    ],
)
def test_a_forked_child_is_killed_in_setproctitles_code_and_lives_with_the_shim(
    make_venv: Callable[..., Venv],
    native: NativeCode,
    tmp_path: Path,
    shim: str,
    ps: list[str],
    events: dict[str, int],
) -> None:
    (tmp_path / "work.py").write_text(MULTIPROCESSING)
    code = f"import runpy; runpy.run_path({str(tmp_path / 'work.py')!r}, run_name='__main__')"
    printed, seen = run(make_venv(), native, tmp_path / "log.txt", code, **{SWITCH: shim})
    lines = ["python" if "/bin/python" in line else line for line in printed.splitlines()]
    assert (lines, seen) == (ps, events)


def test_processtitle_not_prepared_as_fork_safe_kills_a_forked_child(
    make_venv: Callable[..., Venv], native: NativeCode, tmp_path: Path
) -> None:
    code = """
import os, processtitle
processtitle.prepare(fork_safe_only=False)
pid = os.fork()
if not pid:
    processtitle.set_to("child"); os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    printed, seen = run(make_venv(), native, tmp_path / "log.txt", code)
    assert printed == "-11" and seen["killed"] == 1


def test_titles_of_threads_are_forgotten_and_those_of_processes_cut_as_the_page_on_compatibility_says(
    make_venv: Callable[..., Venv], native: NativeCode, tmp_path: Path
) -> None:
    code = """
import setproctitle as s
room = len(" ".join(__import__("sys").orig_argv))
s.setthreadtitle("thread")
s.setproctitle("x" * 65536)
print(repr(s.getthreadtitle()), len(s.getproctitle()) < 65536)
"""
    printed, _ = run(make_venv(), native, tmp_path / "log.txt", code, **{SWITCH: "off"})
    assert printed == "'' True"


def test_the_tests_that_compare_with_the_c_module_pass_with_the_macos_code(
    native: NativeCode, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            ROOT / "tests/test_replacement.py",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(native.path), "NATIVE_CODE_LOG": str(log)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "loaded setproctitle._setproctitle" in log.read_text()
