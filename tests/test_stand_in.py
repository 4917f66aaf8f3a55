"""The stand-in for setproctitle dies where the macOS build can, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.environments import STAND_IN, clean_environ

# Without the interpreter's own ways of starting children: fork, and fork with exec.
FORK = """
import os
pid = os.fork()
if not pid:
    {child}
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
TITLE = "import setproctitle as s; s.setproctitle('title'); assert s.getproctitle() == 'title'"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="nothing else tells who was forked")


@pytest.mark.parametrize(
    ("before", "child", "ends"),
    [
        pytest.param("import setproctitle", TITLE, -11, id="a title after a fork"),
        pytest.param("", "import setproctitle", -11, id="an import after a fork", marks=LINUX),
        pytest.param(TITLE, "import setproctitle", 0, id="no title after a fork"),
        pytest.param(
            TITLE,
            f"import sys; os.execl(sys.executable, sys.executable, '-c', {TITLE!r})",
            0,
            id="a title after fork and exec",
        ),
    ],
)
def test_a_child_that_is_killed_is_told(before: str, child: str, ends: int, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    code = f"{before}\n{FORK.format(child=child)}"
    environ = clean_environ(PYTHONPATH=str(STAND_IN), NATIVE_CODE_LOG=str(log))
    printed = subprocess.check_output(
        [sys.executable, "-W", "ignore", "-c", code], env=environ, text=True
    )
    assert int(printed) == ends
    assert log.exists() == (ends != 0)
    if ends:
        pid, what, name = log.read_text().split()
        assert pid.isdigit() and (what, name) == ("killed", "setproctitle")
