"""The switch: activate() and deactivate() undo each other exactly, and the finder minds its own business."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.environments import STAND_IN, SWITCH, Venv, clean_environ, write

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
    finders: list[object] = list(sys.meta_path)
    return sum(finder is shim.finder for finder in finders)


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
            assert number % 2 or shim.is_active()
            shim.deactivate()
            assert sys.meta_path == finders
    finally:
        sys.setswitchinterval(interval)


class Other:
    """A meta path finder that answers for one module only, `only_others`."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, Other) if name == "only_others" else None  # type: ignore[arg-type]

    create_module = staticmethod(lambda spec: None)
    exec_module = staticmethod(lambda module: None)


def at_step(
    number: int, what: Callable[[], None], call: Callable[[], object], steps: str = "line"
) -> bool:
    """Call, and do `what` before our step with that number, as another thread might.

    Steps are lines, or operations of the interpreter ("opcode"). Returns whether there was such a step.
    """
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_globals is not vars(shim):
            return None
        frame.f_trace_opcodes = steps == "opcode"
        left -= event == steps
        if left < 0 and event == steps:
            sys.settrace(None)
            what()
        return trace

    # Python 3.12 looks at settrace() whether any frame asks for operations.
    sys._getframe().f_trace_opcodes = steps == "opcode"
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return left < 0


def test_activate_loses_no_finder_that_another_thread_inserts_meanwhile() -> None:
    finders = list(sys.meta_path)
    step = 0
    while at_step(step, lambda: sys.meta_path.insert(0, Other), shim.activate, "opcode"):
        assert shim.is_active() and sys.meta_path.count(Other) == 1
        shim.deactivate()
        sys.meta_path[:] = finders
        step += 1
    assert shim.is_active() and step > 50


def test_deactivate_loses_another_threads_list_in_one_line_only() -> None:
    """As its docstring says: in the one that puts another list there itself."""
    finders = list(sys.meta_path)
    step = lost = 0
    shim.activate()
    while at_step(
        step, lambda: setattr(sys, "meta_path", [Other, *sys.meta_path]), shim.deactivate
    ):
        assert not shim.is_active()
        lost += Other not in sys.meta_path
        sys.meta_path = finders[:]
        shim.activate()
        step += 1
    assert lost == 1 and step > 5


def test_what_another_thread_removes_meanwhile_does_not_hide_the_finder() -> None:
    shim.activate()
    found: list[bool] = []
    step = 0
    sys.meta_path.insert(0, Other)
    while at_step(
        step, lambda: sys.meta_path.remove(Other), lambda: found.append(shim.is_active())
    ):
        sys.meta_path.insert(0, Other)
        step += 1
    sys.meta_path.remove(Other)
    assert all(found) and step > 3


def test_deactivate_makes_no_other_threads_import_skip_a_finder() -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "only_others":
                begun.set()
                assert go.wait(60)

    found: list[object] = []
    finders = list(sys.meta_path)
    shim.activate()
    sys.meta_path += [Slow, Other]
    thread = threading.Thread(target=lambda: found.append(importlib.import_module("only_others")))
    try:
        thread.start()
        assert begun.wait(60)
        shim.deactivate()
    finally:
        go.set()
        thread.join()
        sys.meta_path[:] = finders
    assert found == [sys.modules.pop("only_others")]


def test_while_the_interpreter_shuts_down_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", None)
    assert not shim.is_active()
    shim.deactivate()


def test_copies_of_the_finder_are_the_finder() -> None:
    finder = shim.finder
    assert copy.copy(finder) is copy.deepcopy([finder])[0] is finder
    assert pickle.loads(pickle.dumps(finder)) is finder


# --- its state


STATE = """
import sys
import setproctitle as early
import airflow_setproctitle_shim as shim
shim.activate()
del sys.modules["setproctitle"]
import setproctitle
setproctitle.setproctitle("title"); setproctitle.setthreadtitle("thread")
shim.deactivate()
assert shim.finder.wrappers and shim.finder.shown == b"title"
print(vars(shim.finder).keys() - vars(shim.Finder).keys())
"""


def test_all_state_is_declared_in_one_place(make_venv: MakeVenv, tmp_path: Path) -> None:
    write(tmp_path / "processtitle.py", "def prepare(**_): pass\ndef set_to(title): pass\n")
    path = os.pathsep.join(map(str, (STAND_IN, tmp_path)))
    out = make_venv(macos=False).evaluate(STATE, **{SWITCH: "titles", "PYTHONPATH": path})
    assert out == "set()"


def what_a_type_checker_sees() -> None:
    """Nobody runs it: mypy says so if one of these is no error, as the comment is unused then."""
    shim.finder.proces_title = b""  # type: ignore[attr-defined]
    shim.finder.process_title = ""  # type: ignore[assignment]


# What a replacement.py may use of a finder that an older version made, from 0.9.0 on.
NEEDED: dict[str, object] = {
    "face": {},
    "process_title": None,
    "show": None,
    "shows_titles": False,
    "thread_titles": None,
}


def test_a_process_that_started_with_an_older_version_imports_the_newest_replacement() -> None:
    assert NEEDED.keys() <= vars(shim.Finder).keys()

    class Older:
        """The finder of 0.9.0, with no more than is promised."""

    older = Older()
    vars(older).update(NEEDED)
    code = Path(shim.REPLACEMENT).read_text(encoding="utf-8")
    served: dict[str, Any] = {"__name__": "setproctitle"}
    finder = vars(sys)["_airflow_setproctitle_shim"]
    vars(sys)["_airflow_setproctitle_shim"] = older
    try:
        exec(compile(code, shim.REPLACEMENT, "exec"), served)  # noqa: S102  # as its loader does
    finally:
        vars(sys)["_airflow_setproctitle_shim"] = finder
    served["setproctitle"]("title")
    served["setthreadtitle"]("thread")
    assert (served["getproctitle"](), served["getthreadtitle"]()) == ("title", "thread")
    assert vars(older).keys() == NEEDED.keys()


def test_what_the_finder_of_an_older_copy_lacks_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        origin = "of the older one"

    older = Older()
    monkeypatch.setitem(vars(sys), "_airflow_setproctitle_shim", older)
    forget(shim.__name__)
    new = importlib.import_module(shim.__name__)
    assert new.finder is older and older.origin == "of the older one"
    assert all(hasattr(older, name) for name in vars(new.Finder))


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


RELATIVE = """
import importlib, os, sys
os.chdir(sys.argv[1])
sys.path.insert(0, sys.argv[2])
import airflow_setproctitle_shim as shim
before = set(sys.modules)
shim.activate()
if sys.argv[3]: os.chdir(sys.argv[3])
import setproctitle
assert shim.is_ours(setproctitle) and setproctitle.__doc__ and len(setproctitle.__all__) == 4
setproctitle.setproctitle("title")
shim.activate()
assert importlib.reload(setproctitle).getproctitle() == "title"
assert setproctitle._setproctitle.getproctitle() == "title" and setproctitle.__version__
shim.deactivate()
assert not {"setproctitle", "setproctitle._setproctitle"} & set(sys.modules)
importlib.import_module = __builtins__.__import__ = None
shim.deactivate()
print("ok")
"""


@pytest.mark.parametrize("then", ["", os.sep], ids=["there", "and elsewhere afterwards"])
@pytest.mark.parametrize("entry", ["directory", "archive.zip"])
def test_a_relative_entry_of_sys_path_is_as_good(tmp_path: Path, entry: str, then: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "directory" / PACKAGE.name)
    shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "directory")
    command = [sys.executable, "-S", "-c", RELATIVE, str(tmp_path), entry, then]
    done = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


IMPORTS_NOTHING = """
import sys
import airflow_setproctitle_shim as shim
shim.activate()
import setproctitle
shim.deactivate()

class Odd(type(sys)):
    def __getattr__(self, name):
        raise ImportError(name)

asked = []
sys.modules["setproctitle"] = Odd("setproctitle")
sys.meta_path.insert(0, type("", (), {"find_spec": lambda self, name, *_: asked.append(name)})())
shim.deactivate()
print(asked)
"""


def test_deactivate_imports_nothing(make_venv: MakeVenv) -> None:
    assert make_venv(macos=False).evaluate(IMPORTS_NOTHING) == "[]"


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


@pytest.mark.parametrize("error", [ImportError, KeyboardInterrupt])
def test_an_activate_that_fails_leaves_nothing_switched_on(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setproctitle._setproctitle", reason="needs the native setproctitle")
    native = importlib.import_module("setproctitle").setproctitle
    sys.modules.pop(f"{shim.__name__}.neutralise", None)

    class Failing:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "wrapt":
                raise error

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "wrapt", raising=False)
        sys.meta_path.insert(0, Failing)
        with pytest.raises(error):
            shim.activate()
        sys.meta_path.remove(Failing)
    assert not shim.is_active() and importlib.import_module("setproctitle").setproctitle is native
    shim.activate()
    assert shim.is_active() and importlib.import_module("setproctitle").setproctitle is not native


def test_an_activate_that_fails_leaves_on_what_was_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shim.activate()
    monkeypatch.setitem(sys.modules, "setproctitle", type(sys)("setproctitle"))
    monkeypatch.setitem(sys.modules, f"{shim.__name__}.neutralise", None)
    with pytest.raises(ImportError):
        shim.activate()
    assert shim.is_active()


FORK_WHILE_IMPORTING = """
import os, signal, sys, threading
import airflow_setproctitle_shim as shim
sys.begun, sys.go = threading.Event(), threading.Event()
importing = threading.Thread(target=__import__, args=("setproctitle",))
importing.start()
sys.begun.wait(20)
for threads in (0, 1):
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # what hangs dies of SIGALRM
        # It gets the number of the importing one, which is no more, on most systems.
        for _ in range(threads): threading.Thread(target=signal.pause, daemon=True).start()
        shim.activate()
        os._exit(not shim.is_active())
    print(os.waitpid(pid, 0)[1])
sys.go.set()
importing.join()
"""


def test_a_child_forked_while_another_thread_imports_it_waits_for_nobody(tmp_path: Path) -> None:
    slow = "import sys; sys.begun.set(); sys.go.wait(60)\ndef setproctitle(title): pass\n"
    write(tmp_path / "setproctitle.py", slow)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK_WHILE_IMPORTING],
        env=clean_environ(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0\n0\n", done.stderr


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
