"""activate() and deactivate() undo each other exactly, and the finder minds its own business."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import airflow_setproctitle_shim as shim


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Every test starts without setproctitle and leaves the shim off."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "setproctitle"]:
        del sys.modules[name]
    yield
    shim.deactivate()


def others() -> dict[str, object]:
    """What is in sys.modules but the shim's own modules, which stay."""
    return {name: module for name, module in sys.modules.items() if not name.startswith(shim.__name__)}


def test_deactivate_undoes_activate_exactly() -> None:
    finders, modules = list(sys.meta_path), others()
    shim.activate()
    importlib.import_module("setproctitle")
    shim.deactivate()
    assert sys.meta_path == finders
    assert others() == modules


def test_twice_on_is_on_once_and_off_without_on_is_nothing() -> None:
    finders = list(sys.meta_path)
    shim.deactivate()
    assert sys.meta_path == finders
    shim.activate()
    shim.activate()
    assert len(sys.meta_path) == len(finders) + 1
    assert shim.is_active()
    shim.deactivate()
    assert not shim.is_active()


def test_the_finder_is_first_and_answers_for_setproctitle_only() -> None:
    shim.activate()
    finder = sys.meta_path[0]
    assert finder.find_spec("setproctitle", None) is not None
    for name in ("setproctitle2", "setproctitl", "SETPROCTITLE", "os", "setproctitle.other", ""):
        assert finder.find_spec(name, None) is None


def test_a_second_copy_of_the_package_finds_the_finder() -> None:
    assert vars(sys)["_airflow_setproctitle_shim"] is shim.finder


def test_the_spec_says_where_the_module_comes_from() -> None:
    shim.activate()
    spec = importlib.util.find_spec("setproctitle")
    assert spec is not None
    assert spec.origin == shim.REPLACEMENT and spec.has_location
    assert spec.submodule_search_locations == []
    assert spec.cached == importlib.util.cache_from_source(shim.REPLACEMENT)


@pytest.mark.parametrize(
    ("ours", "served"), [("/c/__init__.py/__init__.x.pyc", "/c/__init__.py/replacement.x.pyc"), (None, None)]
)
def test_bytecode_is_cached_beside_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, ours: str | None, served: str | None
) -> None:
    monkeypatch.setattr(shim, "__spec__", ours and importlib.util.spec_from_loader("x", None))
    if ours:
        monkeypatch.setattr(shim.__spec__, "cached", ours)
    spec: object = shim.finder.find_spec("setproctitle")
    assert vars(spec)["_cached"] == served


def test_it_is_served_from_any_directory(tmp_path: Path) -> None:
    place = tmp_path / "my__init__directory"
    shutil.copytree(os.path.dirname(shim.__file__), place / shim.__name__)
    code = "import airflow_setproctitle_shim as s; s.activate(); import setproctitle as t; print(t.__file__, t.getproctitle())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    title = f"{sys.executable} -c {code}" if sys.version_info >= (3, 10) else "-c"
    assert done.stdout == f"{place}/{shim.__name__}/replacement.py {title}\n"


@pytest.mark.parametrize("when", ["cold", "after the package"])
def test_the_c_module_is_the_replacement_while_active(when: str) -> None:
    shim.activate()
    if when != "cold":
        importlib.import_module("setproctitle")
    c_module = importlib.import_module("setproctitle._setproctitle")
    assert c_module.__file__ == shim.REPLACEMENT
    from setproctitle import _setproctitle  # type: ignore[attr-defined]  # no stub has it

    assert _setproctitle is c_module
    c_module.setproctitle("a title")
    assert importlib.import_module("setproctitle").getproctitle() == "a title"
    shim.deactivate()
    assert "setproctitle._setproctitle" not in sys.modules


def test_py_setproctitles_own_layer_over_the_replacement_leaves_with_it() -> None:
    shim.activate()
    # As finders do that ask PathFinder past all others.
    spec = PathFinder.find_spec("setproctitle")
    assert spec is not None and spec.loader is not None
    layer = sys.modules["setproctitle"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layer)
    assert layer.__file__ != shim.REPLACEMENT and layer._setproctitle.__file__ == shim.REPLACEMENT
    safe = layer.setproctitle
    shim.activate()
    assert layer.setproctitle is safe  # There is nothing native in it.
    shim.deactivate()
    assert not set(shim.SERVED) & set(sys.modules)


def test_the_installed_metadata_stays_true() -> None:
    from importlib import metadata

    before = metadata.version("setproctitle"), metadata.files("setproctitle")
    shim.activate()
    assert (metadata.version("setproctitle"), metadata.files("setproctitle")) == before


def test_somebody_elses_module_in_sys_modules_is_left_there() -> None:
    shim.activate()
    importlib.import_module("setproctitle")
    other = sys.modules["setproctitle"] = type(sys)("setproctitle")
    shim.deactivate()
    assert sys.modules["setproctitle"] is other


def test_a_finder_put_in_front_later_is_left_in_front() -> None:
    class Other:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            return None

    shim.activate()
    other = Other()
    sys.meta_path.insert(0, other)
    try:
        shim.activate()
        assert sys.meta_path[0] is other
        assert importlib.import_module("setproctitle").__file__ == shim.REPLACEMENT
        shim.deactivate()
        assert sys.meta_path[0] is other
    finally:
        sys.meta_path.remove(other)


def test_threads_that_activate_at_once_activate_once() -> None:
    barrier = threading.Barrier(16)

    def work() -> None:
        barrier.wait()
        shim.activate()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.meta_path.count(shim.finder) == 1  # type: ignore[arg-type]  # A ModuleSpec is an object.


WAITS = """
import os, signal, threading
import airflow_setproctitle_shim as shim
seen, inside, begun, forked = [], threading.Event(), threading.Event(), threading.Event()
# What is registered first runs last before a fork.
os.register_at_fork(before=lambda: (seen.append("fork"), forked.set()))
shim.deactivate()
os.register_at_fork(before=begun.set)

def switch():
    with shim.finder.lock():
        inside.set()
        begun.wait()
        forked.wait(0.2)  # It must not come.
        seen.append("switched")

thread = threading.Thread(target=switch)
thread.start()
inside.wait()
if not (pid := os.fork()):
    signal.alarm(20)
    shim.activate()
    os._exit(0)
thread.join()
threads = [threading.Thread(target=shim.activate, daemon=True), threading.Thread(target=shim.deactivate, daemon=True)]
for thread in threads:
    thread.start()
    thread.join(20)
print(seen, os.waitpid(pid, 0)[1], [thread.is_alive() for thread in threads])
"""


def test_a_fork_waits_for_a_thread_that_switches() -> None:
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, check=True)
    assert done.stdout == "['switched', 'fork'] 0 [False, False]\n"


def test_forks_are_made_to_wait_once_where_there_is_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.append(hooks))
    monkeypatch.setattr(shim.finder, "held", False, raising=False)
    shim.deactivate()
    shim.deactivate()
    assert len(registered) == 1
    monkeypatch.delattr(os, "register_at_fork")
    monkeypatch.setattr(shim.finder, "held", False)
    shim.deactivate()
