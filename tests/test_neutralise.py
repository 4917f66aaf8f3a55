"""A native setproctitle that was imported first is neutralised where it stands, and given back exactly."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.environments import STAND_IN, Venv, clean_environ

import airflow_setproctitle_shim as shim


def needs_native() -> None:
    """Skip the test where the native setproctitle is not installed."""
    pytest.importorskip("setproctitle._setproctitle", reason="needs the native setproctitle")


def forget() -> None:
    """Take setproctitle out of sys.modules, so that the next import is the first."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "setproctitle"]:
        del sys.modules[name]


def identities(module: types.ModuleType) -> dict[str, int]:
    """Which object each global is; a wrapt proxy equals what it wraps, so == would not tell."""
    return {name: id(value) for name, value in vars(module).items()}


def is_native(function: object) -> bool:
    """Whether it is a C function and not a proxy for one, which isinstance() would not tell."""
    return type(function) is types.BuiltinFunctionType


def user_of(monkeypatch: pytest.MonkeyPatch, **names: object) -> types.ModuleType:
    """Return a module of a user's, with these globals."""
    module = types.ModuleType(f"user{len(sys.modules)}")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def native() -> Iterator[types.ModuleType]:
    """The real setproctitle, imported before the shim is on."""
    needs_native()
    forget()
    yield importlib.import_module("setproctitle")
    shim.deactivate()
    forget()


@pytest.fixture
def elsewhere(native: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that did `from setproctitle import setproctitle, getproctitle as title`."""
    return user_of(monkeypatch, setproctitle=native.setproctitle, title=native.getproctitle)


# --- what is found, and given back


def test_module_and_imported_names_stop_reaching_native_code_and_deactivate_gives_back_every_object(
    native: types.ModuleType, elsewhere: types.ModuleType
) -> None:
    modules = [native, native._setproctitle, elsewhere]
    before, title = [identities(module) for module in modules], native.getproctitle()
    shim.activate()
    elsewhere.setproctitle("a title")
    assert (
        native.getproctitle()
        == native._setproctitle.getproctitle()
        == elsewhere.title()
        == "a title"
    )
    shim.deactivate()
    assert [identities(module) for module in modules] == before
    assert native.getproctitle() == title


def test_what_was_imported_while_active_is_native_afterwards_and_a_reload_changes_nothing(
    native: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = native.setproctitle
    shim.activate()
    importlib.reload(native)
    late = user_of(monkeypatch, setproctitle=native.setproctitle)
    kept = native.getproctitle
    assert not is_native(late.setproctitle)
    shim.deactivate()
    assert late.setproctitle is native.setproctitle is original
    title = native.getproctitle()
    native.setproctitle("by the native function")
    assert kept() == "by the native function"
    native.setproctitle(title)


def test_what_was_given_back_is_neutralised_again_where_its_module_is_gone_meanwhile(
    native: types.ModuleType, elsewhere: types.ModuleType
) -> None:
    shim.activate()
    shim.deactivate()
    assert is_native(elsewhere.setproctitle)
    forget()
    shim.activate()
    assert not is_native(elsewhere.setproctitle)


def test_a_dropped_module_that_holds_itself_is_walked_over_once(
    native: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_of(monkeypatch, module=native)
    vars(native)["itself"] = native
    forget()
    again = importlib.import_module("setproctitle")

    def hangs(*_: object) -> None:
        raise AssertionError("it walks on and on")

    handler = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(20)
    try:
        shim.activate()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    assert not is_native(native.setproctitle) and not is_native(again.setproctitle)


def test_of_a_module_that_was_imported_twice_nothing_native_is_left(
    native: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = user_of(monkeypatch, function=native.setproctitle, module=native)
    forget()
    again = importlib.import_module("setproctitle")
    assert again.setproctitle is not native.setproctitle
    found: list[Callable[[], object]] = [
        lambda: user.function,
        lambda: native.setproctitle,
        lambda: again.setproctitle,
    ]
    before = [function() for function in found]
    shim.activate()
    assert not any(is_native(function()) for function in found)
    shim.deactivate()
    assert all(function() is original for function, original in zip(found, before))


IMPORTING = """
import sys, threading, importlib.machinery as machinery
import wrapt
import airflow_setproctitle_shim as shim
begun, waiting, go = threading.Event(), threading.Event(), threading.Event()

create = machinery.ExtensionFileLoader.create_module
def create_module(self, spec):
    module = create(self, spec)
    if "setproctitle" in spec.name: begun.set(); go.wait(60)
    return module
machinery.ExtensionFileLoader.create_module = create_module

# What waits for an import that another thread runs.
bootstrap = sys.modules["_frozen_importlib"]
wait = bootstrap._lock_unlock_module
def lock_unlock_module(name):
    if threading.current_thread() is not importing: waiting.set()
    wait(name)
bootstrap._lock_unlock_module = lock_unlock_module

def work(): import setproctitle
importing = threading.Thread(target=work); importing.start(); begun.wait(60)
activating = threading.Thread(target=shim.activate); activating.start()
assert waiting.wait(60)
go.set(); importing.join(); activating.join()
import setproctitle
print(shim.is_active(), type(setproctitle.setproctitle) is type(len))
shim.deactivate()
import setproctitle
print(type(setproctitle.setproctitle) is type(len))
waiting.clear()
shim.activate()
print(waiting.is_set())
"""


def test_what_another_thread_is_importing_is_waited_for_and_nobody_where_none_does() -> None:
    needs_native()
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "False", "True", "False"], done.stderr


def test_the_replacement_beside_a_native_module_is_left_alone(native: types.ModuleType) -> None:
    del sys.modules["setproctitle"]
    shim.activate()
    ours = importlib.import_module("setproctitle")
    before = identities(ours)
    shim.activate()
    assert not is_native(native._setproctitle.setproctitle) and identities(ours) == before


def test_a_module_whose_c_part_was_imported_anew_meanwhile_leaves_with_it(
    native: types.ModuleType,
) -> None:
    shim.activate()
    del sys.modules["setproctitle._setproctitle"]
    assert shim.is_ours(importlib.import_module("setproctitle._setproctitle"))
    shim.deactivate()
    assert is_native(importlib.import_module("setproctitle")._setproctitle.setproctitle)
    assert is_native(native.setproctitle)


# --- the functions themselves


def test_neutralised_functions_check_arguments_and_are_copied_and_pickled_as_native_ones(
    native: types.ModuleType,
) -> None:
    assert copy.deepcopy(native.setproctitle) is native.setproctitle
    shim.activate()
    function = native.setproctitle
    with pytest.raises(TypeError):
        function(1)
    with pytest.raises(ValueError, match="embedded null character"):
        function("a\0b")
    for again in (
        copy.copy(function),
        copy.deepcopy({"f": function})["f"],
        pickle.loads(pickle.dumps(function)),
    ):
        assert again is function


# --- odd entries of sys.modules


ASKED: list[str] = []


class Hostile(types.ModuleType):
    """As lazy modules are, which load something when they are asked anything."""

    def __getattribute__(self, name: str) -> Any:
        ASKED.append(name)
        raise AssertionError(name)

    def __bool__(self) -> bool:
        ASKED.append("bool")
        raise AssertionError("bool")


class OddDict:
    """Its dictionary is a property, which raises."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no dictionary")


ListForDict = type("ListForDict", (), {"__dict__": []})


ODD = {
    "none": None,
    "a number": 7,
    "a class": Hostile,
    "odd": OddDict(),
    "odder": ListForDict(),
    "lazy": Hostile("lazy"),
}


def test_odd_entries_of_sys_modules_are_not_asked_and_do_no_harm(
    native: types.ModuleType, elsewhere: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = elsewhere.setproctitle
    importlib.import_module("wrapt")  # Its C module would look for it in the real sys.modules.
    monkeypatch.setattr(sys, "modules", {**ODD, **sys.modules})
    ASKED.clear()
    shim.activate()
    assert elsewhere.setproctitle is not original
    shim.deactivate()
    assert elsewhere.setproctitle is original
    assert ASKED == []


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_module_in_setproctitles_place_does_not_keep_the_shim_off(
    odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    monkeypatch.setitem(sys.modules, "setproctitle", ODD[odd])
    ASKED.clear()
    shim.activate()
    assert shim.is_active()
    shim.deactivate()
    assert not shim.is_active() and sys.modules["setproctitle"] is ODD[odd]
    assert ASKED == []


def odd_functions() -> Iterator[types.FunctionType]:
    """Functions whose globals are odd, or, on PyPy, that have none."""

    class Name(str):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no ==")

        __hash__ = str.__hash__

    class Spec:
        @property
        def origin(self) -> str:
            raise RuntimeError("no origin")

    for names in ({}, {"__name__": Name()}, {"__name__": "setproctitle", "__spec__": Spec()}):
        yield types.FunctionType((lambda: None).__code__, names, "setproctitle")


def test_functions_with_odd_globals_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setitem(sys.modules, "setproctitle", types.ModuleType("setproctitle"))
    user = user_of(monkeypatch, **{f"odd{id(one)}": one for one in odd_functions()})
    before = identities(user)
    shim.activate()
    assert shim.is_active()
    shim.deactivate()
    assert identities(user) == before


# --- at the same time

MEANWHILE = """
import sys, types
import setproctitle
import airflow_setproctitle_shim as shim
shim.activate(); shim.deactivate()
native, hits = [setproctitle.setproctitle], {}

def meanwhile(frame, event, argument):
    # What other threads do at any line of ours: they import, and set globals.
    if frame.f_globals.get("__name__") != "airflow_setproctitle_shim.neutralise": return None
    hits[frame.f_lineno] = hits.get(frame.f_lineno, 0) + 1
    if event == "line" and hits[frame.f_lineno] < 9:
        new = f"new{len(sys.modules)}"
        sys.modules[new] = types.ModuleType(new)
        vars(setproctitle)[new] = None
        shim.finder.wrappers[id(new)] = (new, sys.modules[new])
        namespace = frame.f_locals.get("namespace")
        if namespace is not None: namespace[new] = None
    return meanwhile

for switch, wrapped in ((shim.activate, True), (shim.deactivate, False)):
    sys.settrace(meanwhile)
    switch()
    sys.settrace(None)
    assert (setproctitle.setproctitle is not native[0]) is wrapped
print("ok" if len(hits) > 20 else hits)
"""


def test_what_other_threads_import_meanwhile_does_no_harm() -> None:
    needs_native()
    done = subprocess.run(
        [sys.executable, "-c", MEANWHILE],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr


@pytest.mark.parametrize("then", ["off", "on"])
def test_a_switch_by_another_thread_meanwhile_is_followed(
    then: str, native: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread comes while the modules are walked over, and does its own walk later."""
    original = native.setproctitle
    shim.activate()
    if then == "off":
        shim.deactivate()

    class Switching:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            if shim.is_active() is (then == "off"):
                if then == "off":
                    sys.meta_path.remove(shim.finder)  # type: ignore[arg-type]
                else:
                    sys.meta_path.insert(0, shim.finder)  # type: ignore[arg-type]
            return {}

    monkeypatch.setitem(sys.modules, "zzz_switching", Switching())
    if then == "off":
        shim.activate()
    else:
        shim.deactivate()
    assert (native.setproctitle is original) is (then == "off")


# --- forking

FORKING = """
import os, sys
import first, second
if sys.argv[1] == "on":
    import airflow_setproctitle_shim
    airflow_setproctitle_shim.activate()
died = 0
for set_title in (first.setproctitle, second.setproctitle.setproctitle):
    pid = os.fork()
    if not pid:
        set_title("worker")
        os._exit(0)
    died += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
print(died)
"""


@pytest.mark.parametrize(("switch", "died"), [("off", 2), ("on", 0)])
def test_children_of_a_process_that_imported_it_everywhere_survive_late_activation(
    make_venv: Any, tmp_path: Any, switch: str, died: int
) -> None:
    venv: Venv = make_venv()
    (tmp_path / "first.py").write_text("from setproctitle import setproctitle\n")
    (tmp_path / "second.py").write_text("import setproctitle\n")
    path = os.pathsep.join([str(STAND_IN), str(tmp_path)])
    done = venv.run("-c", FORKING, switch, PYTHONPATH=path, AIRFLOW_SETPROCTITLE_SHIM="off")
    assert done.stdout.strip() == str(died)


# --- interrupted, and in any order

INTERRUPTED = """
import sys
at_start = {*sys.modules}
import setproctitle
from setproctitle import setproctitle as function
import airflow_setproctitle_shim as shim
shim.activate(); shim.deactivate()
# Each module is walked over at each interruption: those that others have imported are left out.
for name in {*sys.modules} - at_start:
    if not name.startswith(("airflow_setproctitle_shim", "setproctitle", "wrapt")): del sys.modules[name]
natives = [setproctitle.setproctitle, setproctitle.getproctitle, function]
finders = list(sys.meta_path)

class Interrupted(KeyboardInterrupt): pass

def interrupt_at(n):
    def trace(frame, event, argument):
        nonlocal n
        if frame.f_globals.get("__name__", "").startswith("airflow_setproctitle_shim"):
            n -= event == "line"
            if n < 0: sys.settrace(None); raise Interrupted
            return trace
    sys.settrace(trace)

def put_back():
    shim.deactivate()
    found = [setproctitle.setproctitle, setproctitle.getproctitle, function]
    assert all(one is native for one, native in zip(found, natives)) and sys.meta_path == finders
    assert sys.modules["setproctitle"] is setproctitle

counts = []
for switched in (shim.activate, shim.deactivate):
    n = 0
    while True:
        if switched is shim.deactivate: shim.activate()
        interrupt_at(n)
        try: switched()
        except Interrupted: pass
        else: break
        finally: sys.settrace(None)
        put_back()
        # Every line of the first hundred, then of the walk only some.
        n += 1 if n < 100 else 4999
    put_back()
    counts.append(n)
assert min(counts) > 1000, counts
print("ok")
"""


def test_whatever_line_is_interrupted_deactivate_puts_everything_back() -> None:
    needs_native()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr
