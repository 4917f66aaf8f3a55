"""The switch holds whatever programs do to modules and finders, wherever it fails, and whenever they fork."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from environments import SWITCH, Venv, clean_environ

MakeVenv = Callable[..., Venv]

# What follows the shim's start: `ours()` gives its finders, `native()` whether setproctitle is the C module.
HELPERS = """
import copy, importlib, pickle, sys

def ours():
    names = [getattr(f, "__module__", None) or getattr(f, "__name__", "") for f in sys.meta_path]
    return [f for f, name in zip(sys.meta_path, names) if name.startswith("airflow_setproctitle_shim")]

def native():
    import setproctitle
    return "built-in" in repr(setproctitle.setproctitle)

def forget(*names):
    for name in [n for n in sys.modules if n.partition(".")[0] in names]:
        del sys.modules[name]
"""


@pytest.fixture
def mac(make_venv: MakeVenv) -> Venv:
    return make_venv("setproctitle")


@pytest.fixture
def linux(make_venv: MakeVenv) -> Venv:
    return make_venv("setproctitle", macos=False)


@pytest.mark.parametrize(
    "copied", ["copy.copy", "copy.deepcopy", "lambda path: pickle.loads(pickle.dumps(path))"]
)
def test_a_restored_copy_of_sys_meta_path_has_the_one_finder(mac: Venv, copied: str) -> None:
    code = f"""
assert all(hasattr(finder, "__module__") for finder in sys.meta_path)
saved = ({copied})(sys.meta_path)
import setproctitle
setproctitle.setproctitle("title")
sys.meta_path[:] = []
sys.meta_path[:] = saved
import airflow_setproctitle_shim as shim
assert len(ours()) == 1 and shim.is_active()
shim.activate()
assert len(ours()) == 1
assert importlib.reload(setproctitle).getproctitle() == "title"
shim.deactivate()
assert not ours() and not shim.is_active() and native()
sys.meta_path[:] = saved
assert shim.is_active()
shim.deactivate()
assert not ours() and not shim.is_active() and native()
"""
    mac.run("-c", HELPERS + code)


GONE = {
    "our package deleted": "del sys.modules['airflow_setproctitle_shim']",
    "all our modules deleted": "forget('airflow_setproctitle_shim')",
    "our package reloaded": "importlib.reload(old)",
    "all modules deleted": "forget('airflow_setproctitle_shim', 'setproctitle', 'wrapt')",
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("who", ["old", "new"])
def test_a_second_copy_of_the_package_and_the_first_are_one_switch(mac: Venv, how: str, who: str) -> None:
    code = f"""
import airflow_setproctitle_shim as old
import setproctitle
setproctitle.setproctitle("title"); setproctitle.setthreadtitle("thread")
{GONE[how]}
import airflow_setproctitle_shim as new
assert old.is_active() and new.is_active() and len(ours()) == 1
{who}.activate(); sys.platform = "darwin"; {who}.startup()
assert len(ours()) == 1
sys.modules.pop("setproctitle", None)
import setproctitle
assert setproctitle.getproctitle() == "title" and setproctitle.getthreadtitle() == "thread"
import airflow_setproctitle_shim.airflow
{who}.deactivate()
assert not old.is_active() and not new.is_active() and not ours() and native()
"""
    done = mac.run("-c", HELPERS + code)
    assert "switched on late" not in done.stderr


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("who", ["old", "new"])
def test_either_copy_gives_back_a_neutralised_module(linux: Venv, how: str, who: str) -> None:
    code = f"""
import setproctitle as kept
from setproctitle import setproctitle, _setproctitle
before = {{name: id(value) for name, value in vars(kept).items()}}
import airflow_setproctitle_shim as old
old.activate()
assert "built-in" not in repr(type(setproctitle))
{GONE[how]}
import airflow_setproctitle_shim as new
new.activate()
kept.setproctitle("title")
assert kept.getproctitle() == "title"
{who}.deactivate()
assert {{name: id(value) for name, value in vars(kept).items()}} == before
assert type(setproctitle) is type(_setproctitle.setproctitle) is type(len)
assert not old.is_active() and not new.is_active() and not ours()
"""
    linux.run("-c", HELPERS + code)


def test_titles_mode_outlives_our_modules(make_venv: MakeVenv) -> None:
    mac = make_venv("setproctitle", extra="titles")
    code = """
import setproctitle
setproctitle.setproctitle("first")
forget("airflow_setproctitle_shim", "setproctitle")
import airflow_setproctitle_shim, setproctitle
setproctitle.setproctitle("second")
with open("/proc/self/cmdline") as file:
    assert file.read().startswith("second\\0")
"""
    assert mac.run("-W", "error", "-c", HELPERS + code, **{SWITCH: "titles"}).stderr == ""


# --- failing

ALL_OR_NOTHING = """
import setproctitle
sys.modules["wrapt"] = None
import airflow_setproctitle_shim as shim
try:
    shim.activate()
except ImportError:
    assert not shim.is_active() and not ours() and native()
else:
    raise AssertionError("activate() did without wrapt: this test shows nothing")
del sys.modules["wrapt"]
shim.activate()
assert shim.is_active() and not native()
"""


def test_an_activate_that_fails_leaves_nothing_switched_on(linux: Venv) -> None:
    linux.run("-c", HELPERS + ALL_OR_NOTHING)


def test_a_startup_that_fails_says_why(linux: Venv) -> None:
    code = """
import sys, setproctitle
import airflow_setproctitle_shim as shim
sys.platform, sys.modules["wrapt"] = "darwin", None
shim.startup()
assert not shim.is_active()
"""
    why = "ModuleNotFoundError('import of wrapt halted; None in sys.modules')"
    assert linux.run("-c", code).stderr == f"airflow-setproctitle-shim: not switched on: {why}\n"


def test_switching_on_again_does_nothing_with_the_replacement_loaded(linux: Venv) -> None:
    code = "import airflow_setproctitle_shim as shim, sys\nshim.activate()\nimport setproctitle\nshim.activate()\n"
    assert linux.evaluate(f"{code}print('airflow_setproctitle_shim.neutralise' in sys.modules)") == "False"


BROKEN = {
    "native loaded, wrapt missing": "import setproctitle; sys.modules['wrapt'] = None",
    "no diagnosis": "sys.modules['airflow_setproctitle_shim.diagnosis'] = None",
    "no stderr": "sys.stderr = None",
}


@pytest.mark.parametrize("variable", ["", "maybe"])
@pytest.mark.parametrize("how", BROKEN)
def test_whatever_is_broken_airflow_starts(linux: Venv, how: str, variable: str) -> None:
    code = f"import sys; sys.platform = 'darwin'\n{BROKEN[how]}\nimport airflow_setproctitle_shim.airflow; print('started')"
    environ = {SWITCH: variable, "AIRFLOW_SETPROCTITLE_SHIM_LINEAGE": "on"}
    assert linux.run("-c", code, **environ).stdout == "started\n"


STDERR = {"full": "2>/dev/full", "closed": "2>&-", "a broken pipe": ""}


@pytest.mark.parametrize("stderr", STDERR)
@pytest.mark.parametrize(
    "python",
    [None, *(pytest.param(f"3.{n}", marks=pytest.mark.slow) for n in (9, 10, 12, 13))],
    ids=lambda python: python or "this Python",
)
def test_a_mistyped_variable_never_keeps_python_from_running(
    make_venv: MakeVenv, python: str | None, stderr: str
) -> None:
    mac = make_venv(python=python) if python else make_venv("setproctitle")
    code = "import airflow_setproctitle_shim as shim; print(shim.is_active())"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -c "$1" {STDERR[stderr]}', str(mac.python), code],
            env=clean_environ(**{SWITCH: "maybe"}),
            stdout=subprocess.PIPE,
            stderr=writer,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, "True\n")


# --- forking

FORK_WHILE_SWITCHING = """
import os, signal, sys, threading
import setproctitle
import airflow_setproctitle_shim as shim
sys.setswitchinterval(1e-6)
stop = threading.Event()

def switch():
    while not stop.is_set():
        shim.activate()
        shim.deactivate()

thread = threading.Thread(target=switch)
thread.start()
# The first fork comes while the thread is importing what it needs.
while "airflow_setproctitle_shim.neutralise" not in sys.modules:
    pass
ends = []
for _ in range(50):
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # what hangs dies of SIGALRM
        shim.activate()
        setproctitle.setproctitle("child")
        ok = shim.is_active() and setproctitle.getproctitle() == "child" and type(setproctitle.getproctitle) is not type(len)
        shim.deactivate()
        os._exit(0 if ok and type(setproctitle.getproctitle) is type(len) else 1)
    ends.append(os.waitpid(pid, 0)[1])
    if ends.count(0) < len(ends) - 2:
        break
stop.set()
thread.join()
print(sum(end != 0 for end in ends), "of", len(ends))
"""


def test_a_child_forked_while_another_thread_switches_can_switch(linux: Venv) -> None:
    assert linux.evaluate(FORK_WHILE_SWITCHING) == "0 of 50"


FORKED_WITH_THE_LOCK = """
import os, threading
import airflow_setproctitle_shim as shim
shim.activate()
shim.deactivate()  # From now on a fork holds the lock.
if not os.fork():
    thread = threading.Thread(target=shim.activate, daemon=True)
    thread.start()
    thread.join(20)
    os._exit(not shim.is_active())
print(os.wait()[1])
"""


def test_a_forked_childs_threads_can_switch(linux: Venv) -> None:
    assert linux.evaluate(FORKED_WITH_THE_LOCK) == "0"
