"""In archives and packaged programs, activate() serves the replacement; where startup files run, nothing is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipapp
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import mac
from support.environments import Venv, clean_environ, write

MakeVenv = Callable[..., Venv]

# With the argument "activate" it switches itself on; with "early" somebody imported the native module before;
# with "sources" there must be some to look at.
PROGRAM = """
import importlib, inspect, os, sys


def main():
    if "activate" in sys.argv:
        import airflow_setproctitle_shim as shim
        before = set(sys.modules)
        shim.activate()
    import setproctitle
    setproctitle.setproctitle("title")
    assert importlib.reload(setproctitle) is setproctitle and setproctitle.getproctitle() == "title"
    if "sources" in sys.argv:
        assert inspect.getsource(setproctitle.setproctitle).startswith("def setproctitle(title: str)")
    from setproctitle import _setproctitle
    _setproctitle.setproctitle("by its part")
    del sys.modules["setproctitle"]
    again = importlib.import_module("setproctitle")
    assert again is not setproctitle and again.getproctitle() == "by its part"
    if "early" not in sys.argv and os.path.exists("/proc/self/maps"):
        with open("/proc/self/maps") as maps:
            assert "/_setproctitle." not in maps.read()
    if "activate" in sys.argv:
        shim.deactivate()
        assert not {"setproctitle", "setproctitle._setproctitle"} & (set(sys.modules) - before)
    print("ok")


if __name__ == "__main__":
    main()
"""


def prints_ok(*command: str, **variables: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=clean_environ(**variables),
    )
    assert done.stdout == "ok\n", done.stderr


def test_a_wheel_on_sys_path_serves_the_replacement_after_activate(wheel: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(wheel)!r})\n{PROGRAM}"
    prints_ok(sys.executable, "-I", "-c", code, "activate", "sources")


def test_a_zipapp_run_in_an_environment_with_the_shim_is_served(
    make_venv: MakeVenv, tmp_path: Path
) -> None:
    mac = make_venv("setproctitle")
    write(tmp_path / "app/__main__.py", PROGRAM)
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    prints_ok(str(mac.python), str(tmp_path / "app.pyz"), "sources")


# pyenv builds its Pythons with or without a shared library.
SHARED = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"),
    reason="PyInstaller needs a Python with a shared library",
)

# What makes a program of program.py, its environment's packages and the wheel; and what starts it.
PACKAGERS = [
    pytest.param(
        "pyinstaller --onefile sources/program.py",
        "dist/program activate",
        marks=[SHARED, pytest.mark.long],
    ),
    # pex sets a title itself before it runs the program.
    ("pex WHEEL setproctitle -D sources -m program -o program.pex", "./program.pex activate early"),
    ("pex WHEEL setproctitle -D sources -m program -o program.pex --venv", "./program.pex sources"),
    (
        "shiv WHEEL setproctitle --site-packages sources -e program:main -o program.shiv",
        "./program.shiv sources",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("build", "start"), PACKAGERS)
def test_a_packaged_program_is_served(
    build: str, start: str, wheel: Path, make_venv: MakeVenv, tmp_path: Path
) -> None:
    venv = make_venv("setproctitle", build.split()[0], macos=False)
    write(tmp_path / "sources/program.py", PROGRAM)
    environ = clean_environ(
        PATH=f"{venv.path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        HOME=str(tmp_path / "home"),
        PEX_ROOT=str(tmp_path / "unpacked"),
        SHIV_ROOT=str(tmp_path / "unpacked"),
    )

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command.split(),
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )

    built = run(build.replace("WHEEL", str(wheel)))
    assert built.returncode == 0, built.stdout + built.stderr
    if "activate" not in start:
        # It unpacks itself at its first start, and reads startup files from there.
        run(start.split()[0])
        found = tmp_path.glob("unpacked/**/site-packages/airflow_setproctitle_shim.pth")
        [site_packages] = {path.parent for path in found}
        mac.play_in(site_packages)
    done = run(start)
    assert done.stdout == "ok\n", done.stderr


@pytest.mark.slow
def test_a_pex_without_the_shim_is_served_by_a_python_that_has_it(
    make_venv: MakeVenv, wheel: Path, tmp_path: Path
) -> None:
    """Pex runs it by the environment's base Python, with an emptied sys.path and without our modules."""
    write(tmp_path / "sources/program.py", PROGRAM)
    (tmp_path / "home").mkdir()
    environ = clean_environ(HOME=str(tmp_path / "home"), PEX_ROOT=str(tmp_path / "unpacked"))
    packer = make_venv("setproctitle", "pex", macos=False)
    build = ("-m", "pex", "setproctitle", "-D", "sources", "-m", "program", "-o", "program.pex")
    subprocess.run([*packer.command, *build], env=environ, cwd=tmp_path, check=True, timeout=600)
    base: str = sys._base_executable  # type: ignore[attr-defined]
    where = [base, "-c", "import site; print(site.getusersitepackages())"]
    user_site = Path(subprocess.check_output(where, env=environ, text=True).strip())
    zipfile.ZipFile(wheel).extractall(user_site)
    mac.play_in(user_site)
    kept = {name: environ[name] for name in ("HOME", "PEX_ROOT")}
    prints_ok(base, str(tmp_path / "program.pex"), "sources", **kept)
