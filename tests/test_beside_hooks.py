"""Other tools' import hooks: installed before the shim or after it, none of them gets to native code."""

from __future__ import annotations

import py_compile
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from environments import DDTRACE, STAND_IN, SWITCH, Venv, clean_environ

pytestmark = pytest.mark.slow

MakeVenv = Callable[..., Venv]


@dataclass(frozen=True)
class Hook:
    """A tool that takes part in imports: what to install, and how it is switched on."""

    name: str
    requirements: tuple[str, ...]
    code: str = ""
    launcher: tuple[str, ...] = ()  # a program of the environment that starts Python

    def __str__(self) -> str:
        return self.name


BY_HAND = """
from importlib.machinery import PathFinder
class ByHand:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name) if name == "setproctitle" else None
sys.meta_path.insert(0, ByHand)
"""

HOOKS = [
    *(
        hook
        for version in ("3.1.0", "4.16.0")
        for hook in (
            Hook(f"import ddtrace.auto {version}", (f"ddtrace=={version}",), "import ddtrace.auto"),
            Hook(f"ddtrace-run {version}", (f"ddtrace=={version}",), launcher=("ddtrace-run",)),
        )
    ),
    Hook("typeguard", ("typeguard",), "import typeguard; typeguard.install_import_hook()"),
    Hook("beartype", ("beartype",), "from beartype.claw import beartype_all; beartype_all()"),
    Hook("PathFinder", (), BY_HAND),
]

ACTIVATE = "import airflow_setproctitle_shim as shim; shim.activate()\n"

SERVED = """
import setproctitle
from setproctitle import _setproctitle
assert sys.modules["setproctitle._setproctitle"] is _setproctitle
for module in (setproctitle, _setproctitle):
    module.setproctitle(f"by {module.__name__}")
    assert setproctitle.getproctitle() == _setproctitle.getproctitle() == f"by {module.__name__}"
"""

# The module of the installed setproctitle, whichever name it was loaded by.
NO_C_MODULE = """
from importlib.metadata import files
[native] = [str(file.locate()) for file in files("setproctitle") if file.match("_setproctitle*.so")]
assert native not in open("/proc/self/maps").read()
"""

CHILDREN = """
import os, setproctitle
died = 0
for number in range(20):
    pid = os.fork()
    if not pid:
        setproctitle.setproctitle("child")
        os._exit(setproctitle.getproctitle() != "child")
    died += os.waitpid(pid, 0)[1] != 0
assert died == {expected}, died
"""
LIVE, DIE = CHILDREN.format(expected=0), CHILDREN.format(expected=20)


@pytest.fixture(scope="module")
def like_macos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH for py-setproctitle's own Python layer over a `_setproctitle` that dies after fork."""
    package = tmp_path_factory.mktemp("like_macos") / "setproctitle"
    package.mkdir()
    layer = distribution("setproctitle").locate_file("setproctitle/__init__.py")
    shutil.copy(str(layer), package)
    # Bytecode alone, as those hooks take sources only: the C module that it stands for is none of theirs.
    py_compile.compile(str(STAND_IN / "setproctitle/__init__.py"), str(package / "_setproctitle.pyc"))
    return str(package.parent)


def run(venv: Venv, hook: Hook, program: str, directory: Path, **variables: str) -> None:
    """Run the program under the hook's launcher; it must end well, with no exception left on stderr."""
    launcher = [str(venv.path / "bin" / name) for name in hook.launcher]
    done = subprocess.run(
        [*launcher, str(venv.python), "-c", f"import sys\n{program}print('ok')"],
        env=clean_environ(**{**DDTRACE, **variables}),
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.endswith("ok\n"), done.stdout + done.stderr
    # beartype warns of what it cannot decorate in wrapt.
    assert not re.search("NameError|RecursionError|not been initialized", done.stderr), done.stderr


@pytest.mark.parametrize("hook", HOOKS, ids=str)
def test_without_the_shim_children_die_under_the_hook(
    hook: Hook, make_venv: MakeVenv, like_macos: str, tmp_path: Path
) -> None:
    mac = make_venv("setproctitle", *hook.requirements)
    run(mac, hook, f"{hook.code}\n{DIE}", tmp_path, PYTHONPATH=like_macos, **{SWITCH: "off"})


@pytest.mark.parametrize("hook", HOOKS, ids=str)
@pytest.mark.parametrize("switched", ["at start", "late"])
def test_under_the_hook_nothing_native_is_loaded_and_children_live(
    switched: str, hook: Hook, make_venv: MakeVenv, like_macos: str, tmp_path: Path
) -> None:
    venv = make_venv("setproctitle", *hook.requirements, macos=switched == "at start")
    program = f"{hook.code}\n{ACTIVATE if switched == 'late' else ''}{SERVED}"
    run(venv, hook, program + NO_C_MODULE, tmp_path)
    run(venv, hook, program + LIVE, tmp_path, PYTHONPATH=like_macos)


@pytest.mark.parametrize("hook", HOOKS, ids=str)
def test_under_the_hook_a_native_module_loaded_before_is_neutralised(
    hook: Hook, make_venv: MakeVenv, like_macos: str, tmp_path: Path
) -> None:
    linux = make_venv("setproctitle", *hook.requirements, macos=False)
    program = f"{hook.code}\nimport setproctitle\n{ACTIVATE}{SERVED}{LIVE}"
    run(linux, hook, program, tmp_path, PYTHONPATH=like_macos)
