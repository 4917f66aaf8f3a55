"""Other tools' import hooks: installed before the shim or after it, none of them gets to native code."""

from __future__ import annotations

import py_compile
import re
import shutil
from collections.abc import Callable
from importlib.metadata import distribution

import pytest
from support.environments import DDTRACE, STAND_IN, SWITCH, Venv

pytestmark = pytest.mark.slow

MakeVenv = Callable[..., Venv]


BY_HAND = """
from importlib.machinery import PathFinder
class ByHand:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name) if name == "setproctitle" else None
sys.meta_path.insert(0, ByHand)
"""

# What is installed, and how it is switched on.
HOOKS = {
    "ddtrace==3.1.0": "import ddtrace.auto",
    "ddtrace==4.16.0": "import ddtrace.auto",
    "typeguard": "import typeguard; typeguard.install_import_hook()",
    "beartype": "from beartype.claw import beartype_all; beartype_all()",
    "": BY_HAND,
}

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
    py_compile.compile(
        str(STAND_IN / "setproctitle/__init__.py"), str(package / "_setproctitle.pyc")
    )
    return str(package.parent)


def run(venv: Venv, program: str, **variables: str) -> None:
    """Run the program; it must end well, with no exception left on stderr."""
    done = venv.run("-c", f"import sys\n{program}print('ok')", **DDTRACE, **variables)
    assert done.stdout.endswith("ok\n"), done.stdout + done.stderr
    # beartype warns of what it cannot decorate in wrapt.
    assert not re.search("NameError|RecursionError|not been initialized", done.stderr), done.stderr


@pytest.mark.parametrize("hook", HOOKS)
def test_without_the_shim_children_die_under_the_hook(
    hook: str, make_venv: MakeVenv, like_macos: str
) -> None:
    mac = make_venv("setproctitle", *filter(None, [hook]))
    run(mac, f"{HOOKS[hook]}\n{DIE}", PYTHONPATH=like_macos, **{SWITCH: "off"})


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "switched", ["at start", "late", "late, with the native module loaded before"]
)
def test_under_the_hook_nothing_native_is_called_and_children_live(
    switched: str, hook: str, make_venv: MakeVenv, like_macos: str
) -> None:
    venv = make_venv("setproctitle", *filter(None, [hook]), macos=switched == "at start")
    early = "import setproctitle\n" if "before" in switched else ""
    program = f"{HOOKS[hook]}\n{early}{ACTIVATE if 'late' in switched else ''}{SERVED}"
    run(venv, program + ("" if early else NO_C_MODULE))
    run(venv, program + LIVE, PYTHONPATH=like_macos)
