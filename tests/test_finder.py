"""The switch: activate() and deactivate() undo each other exactly, and the finder minds its own business."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.environments import SWITCH, Venv, clean_environ

import airflow_setproctitle_shim as shim

PACKAGE = Path(shim.__file__).parent
MakeVenv = Callable[..., Venv]


def forget(*packages: str) -> None:
    """Take packages out of sys.modules, with all that is in them."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Every test starts without setproctitle and leaves the shim off."""
    forget("setproctitle")
    ours = {name: module for name, module in sys.modules.items() if name.startswith(shim.__name__)}
    yield
    shim.deactivate()
    forget("setproctitle", shim.__name__)
    sys.modules.update(ours)


def others() -> dict[str, object]:
    """What is in sys.modules but the shim's own modules, which stay."""
    return {
        name: module for name, module in sys.modules.items() if not name.startswith(shim.__name__)
    }


def served() -> Any:
    """Import setproctitle, which must be the replacement."""
    module = importlib.import_module("setproctitle")
    assert module.__file__ == shim.finder.origin
    return module


def entries() -> int:
    """How often the finder stands on sys.meta_path."""
    return sum(finder is shim.finder for finder in sys.meta_path)


# --- on and off


def test_deactivate_undoes_activate_exactly() -> None:
    finders, modules = list(sys.meta_path), others()
    shim.activate()
    served()
    importlib.import_module("setproctitle._setproctitle")
    shim.deactivate()
    assert sys.meta_path == finders
    assert others() == modules


def test_an_import_that_was_forbidden_stays_so_and_costs_nothing(make_venv: MakeVenv) -> None:
    code = """
import sys
import airflow_setproctitle_shim as shim
sys.modules["setproctitle"] = None
before = set(sys.modules)
shim.activate()
assert set(sys.modules) == before
try:
    import setproctitle
except ImportError:
    shim.deactivate()
    print(sys.modules["setproctitle"])
"""
    assert make_venv(macos=False).evaluate(code) == "None"


def test_threads_that_switch_at_once_agree() -> None:
    finders = list(sys.meta_path)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(50):
            barrier = threading.Barrier(4)

            def work(switch: Callable[[], None], barrier: threading.Barrier = barrier) -> None:
                barrier.wait(20)
                switch()

            # In every second round all activate, in the others half of them take it back.
            switches = [
                shim.activate,
                shim.activate,
                *[(shim.activate, shim.deactivate)[number % 2]] * 2,
            ]
            threads = [threading.Thread(target=work, args=(switch,)) for switch in switches]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert entries() <= 1 and (number % 2 or shim.is_active())
            shim.deactivate()
            assert sys.meta_path == finders
    finally:
        sys.setswitchinterval(interval)


# --- two copies of the package, and its modules gone


@pytest.mark.parametrize("native", [False, True], ids=["served", "neutralised"])
@pytest.mark.parametrize("how", ["deleted from sys.modules", "at another path"])
@pytest.mark.parametrize("who", ["old", "new"])
def test_a_second_copy_of_the_package_and_the_first_are_one_switch(
    how: str, who: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native:
        pytest.importorskip("setproctitle._setproctitle", reason="needs the native setproctitle")
    else:
        shim.activate()
    kept = importlib.import_module("setproctitle")
    user = type(sys)("user_of_setproctitle")
    user.__dict__["setproctitle"] = kept
    monkeypatch.setitem(sys.modules, "user_of_setproctitle", user)
    before = {name: id(value) for name, value in vars(kept).items()}
    shim.activate()
    kept.setproctitle("title")
    kept.setthreadtitle("thread")
    forget(shim.__name__)
    if how == "at another path":
        shutil.copytree(PACKAGE, tmp_path / PACKAGE.name)
        monkeypatch.syspath_prepend(tmp_path)
    new = importlib.import_module(shim.__name__)
    assert new.is_active() and new.finder is shim.finder
    for one in (new, shim):
        one.activate()
        assert entries() == 1
        module = importlib.import_module("setproctitle")
        assert (module.getproctitle(), module.getthreadtitle()) == ("title", "thread")
    (shim if who == "old" else new).deactivate()
    assert not new.is_active() and not shim.is_active() and entries() == 0
    if native:
        assert {name: id(value) for name, value in vars(kept).items()} == before
    else:
        assert "setproctitle" not in sys.modules
    kept.setthreadtitle("")


UNINSTALLED = """
import importlib, os, sys
sys.path.insert(0, sys.argv[1])
import airflow_setproctitle_shim as shim
{early}
shim.activate()
import setproctitle
setproctitle.setproctitle("before")
sys.path.remove(sys.argv[1])
os.rename(sys.argv[1], sys.argv[1] + ".gone")
for name in [name for name in sys.modules if name.startswith("airflow_setproctitle_shim")]:
    del sys.modules[name]
importlib.invalidate_caches()
setproctitle.setproctitle("after"); setproctitle.setthreadtitle("thread")
assert importlib.reload(setproctitle).getproctitle() == "after"
{again}
assert setproctitle.getthreadtitle() == "thread"
shim.deactivate()
assert not shim.is_active()
import setproctitle
print(type(setproctitle.setproctitle) is type(len))
"""


@pytest.mark.parametrize("titles", ["auto", "titles"])
@pytest.mark.parametrize("early", [False, True], ids=["served", "neutralised"])
def test_all_works_on_after_the_files_are_gone(tmp_path: Path, early: bool, titles: str) -> None:
    if titles == "titles":
        pytest.importorskip("processtitle", reason="needs processtitle, which needs CPython 3.10")
    pytest.importorskip("setproctitle._setproctitle", reason="needs the native setproctitle")
    shutil.copytree(PACKAGE, tmp_path / "site" / PACKAGE.name)
    again = "del sys.modules['setproctitle']\nimport setproctitle\nassert setproctitle.getproctitle() == 'after'"
    code = UNINSTALLED.format(early="import setproctitle" * early, again="" if early else again)
    libraries = os.pathsep.join(path for path in sys.path if "site-packages" in path)
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", code, str(tmp_path / "site")],
        env=clean_environ(**{SWITCH: titles, "PYTHONPATH": libraries}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_an_import_that_comes_first_after_the_removal_is_an_importerror(fresh_venv: Venv) -> None:
    code = "import shutil, sys; shutil.rmtree(sys.argv[1])\ntry: import setproctitle\nexcept ImportError: print('one')"
    assert fresh_venv.evaluate(code, str(fresh_venv.site_packages / PACKAGE.name)) == "one"


def test_a_program_that_empties_sys_path_and_sys_modules_is_served(make_venv: MakeVenv) -> None:
    """As pex does before it runs one."""
    code = """
import sys
for name in [name for name in sys.modules if name.startswith("airflow_setproctitle_shim")]:
    del sys.modules[name]
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
import setproctitle
setproctitle.setproctitle("title")
print(setproctitle.getproctitle(), setproctitle._setproctitle.getproctitle(), setproctitle.__version__)
"""
    out = make_venv("setproctitle").evaluate(
        code, **{SWITCH: "titles" * (sys.version_info >= (3, 10))}
    )
    assert out.split() == ["title", "title", "1.3.8"]


# --- what is served


def test_the_finder_is_first_and_answers_for_setproctitle_only() -> None:
    shim.activate()
    finder = sys.meta_path[0]
    assert finder.find_spec("setproctitle", None) is not None
    for name in ("setproctitle2", "setproctitl", "SETPROCTITLE", "os", "setproctitle.other", ""):
        assert finder.find_spec(name, None) is None


def test_the_c_module_is_the_replacement_and_an_attribute_as_of_the_native_package() -> None:
    shim.activate()
    c_module = served()._setproctitle
    assert (
        c_module is sys.modules["setproctitle._setproctitle"]
        and c_module.__file__ == shim.finder.origin
    )
    assert not hasattr(c_module, "_setproctitle")
    c_module.setproctitle("a title")
    assert served().getproctitle() == "a title"


# --- failing and forking


def test_an_activate_that_fails_leaves_nothing_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setproctitle._setproctitle", reason="needs the native setproctitle")
    native = importlib.import_module("setproctitle").setproctitle
    sys.modules.pop(f"{shim.__name__}.neutralise", None)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wrapt", None)
        with pytest.raises(ImportError):
            shim.activate()
    assert not shim.is_active() and importlib.import_module("setproctitle").setproctitle is native
    shim.activate()
    assert shim.is_active() and importlib.import_module("setproctitle").setproctitle is not native


FORK_WHILE_SWITCHING = """
import os, signal, sys, threading
import setproctitle, wrapt
import airflow_setproctitle_shim as shim
shim.activate(); shim.deactivate()  # Or a child might wait for Python's own lock on a module.
sys.setswitchinterval(1e-6)
stop = threading.Event()

def switch():
    while not stop.is_set():
        shim.activate()
        shim.deactivate()

thread = threading.Thread(target=switch)
thread.start()
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
stop.set()
thread.join()
print(sum(end != 0 for end in ends), "of", len(ends))
"""


def test_a_child_forked_while_another_thread_switches_can_switch() -> None:
    pytest.importorskip("setproctitle._setproctitle", reason="needs the native setproctitle")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK_WHILE_SWITCHING]
    done = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=False)
    assert done.stdout == "0 of 50\n", done.stderr
