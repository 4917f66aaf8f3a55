"""The served module behaves as setproctitle's C functions do; the real one, where installed, is the measure."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

import airflow_setproctitle_shim as shim


@pytest.fixture
def served() -> Iterator[ModuleType]:
    """`import setproctitle` with the shim on, and everything as it was afterwards."""
    sys.modules.pop("setproctitle", None)
    shim.activate()
    yield importlib.import_module("setproctitle")
    shim.deactivate()


@pytest.fixture
def native() -> dict[str, Callable[..., object]]:
    """The real C functions, taken before the shim is on: it neutralises those in the module."""
    assert not shim.is_active()
    module = pytest.importorskip(
        "setproctitle._setproctitle", reason="needs the native setproctitle"
    )
    functions = {name: getattr(module, name) for name in ("setproctitle", "setthreadtitle")}
    assert {type(function) for function in functions.values()} == {type(len)}
    return functions


def outcome(call: Callable[[], object]) -> object:
    """What a call gives: its result, or the type of what it raises; a ValueError also by its words."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001
        return str(error) if type(error) is ValueError else type(error)


ARGUMENTS = [
    ((), {}),
    (("title",), {}),
    ((), {"title": "title"}),
    (("title",), {"title": "title"}),
    (("one", "two"), {}),
    ((), {"name": "title"}),
    ((b"title",), {}),
    ((None,), {}),
    ((1,), {}),
    (("",), {}),
    (("a\0b",), {}),
    (("\ud800",), {}),
    (("\ud800\0",), {}),
    (("naïve – 🐍",), {}),
    ((type("S", (str,), {"encode": lambda *_: b""})("sub"),), {}),
]


def test_arguments_are_accepted_and_rejected_as_by_the_c_function(
    native: dict[str, Callable[..., object]], served: ModuleType
) -> None:
    for name, function in native.items():
        for args, kwargs in ARGUMENTS:
            ours = outcome(functools.partial(getattr(served, name), *args, **kwargs))
            assert ours == outcome(functools.partial(function, *args, **kwargs)), (
                name,
                args,
                kwargs,
            )


def test_titles_come_back_whole(served: ModuleType) -> None:
    for title in ("", "two\nlines", "naïve – 🐍", "é" * 4000):
        served.setproctitle(title)
        assert served.getproctitle() == title


def test_before_any_title_there_is_the_command_line(
    served: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.version_info >= (3, 10):
        assert served.getproctitle() == " ".join(sys.orig_argv)
    monkeypatch.delattr(sys, "orig_argv", raising=False)
    monkeypatch.setattr(sys, "argv", ["program", "argument"])
    assert served.getproctitle() == "program argument"


def test_children_inherit_the_title_through_fork_and_do_not_change_the_parents(
    served: ModuleType,
) -> None:
    served.setproctitle("parent")
    pid = os.fork()
    if not pid:
        inherited = served.getproctitle() == "parent"
        served.setproctitle("child")
        os._exit(0 if inherited and served.getproctitle() == "child" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert served.getproctitle() == "parent"


def test_thread_titles_are_each_threads_own(served: ModuleType) -> None:
    seen: list[str] = []

    def work() -> None:
        seen.append(served.getthreadtitle())
        served.setthreadtitle("other")
        seen.append(served.getthreadtitle())

    served.setthreadtitle("main")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["", "other"]
    assert served.getthreadtitle() == "main"
    served.setthreadtitle("")


def test_titles_outlive_a_reload_and_a_second_import(served: ModuleType) -> None:
    served.setproctitle("process")
    served.setthreadtitle("thread")
    importlib.reload(served)
    del sys.modules["setproctitle"]
    for module in (served, importlib.import_module("setproctitle")):
        assert (module.getproctitle(), module.getthreadtitle()) == ("process", "thread")
    served.setthreadtitle("")


def test_the_version_is_that_of_the_installed_distribution(
    served: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"setproctitle": "1.4"}.__getitem__)
    assert served.__version__ == "1.4"


@pytest.mark.parametrize("state", ["missing", "broken", "without a version", "with an empty one"])
def test_without_readable_metadata_the_version_is_the_one_it_mirrors(
    served: ModuleType, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    def version(name: str) -> str | None:
        if state == "missing":
            raise importlib.metadata.PackageNotFoundError(name)
        if state == "broken":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "metadata of another encoding")
        return None if state == "without a version" else ""

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert served.__version__ == "1.3.8"


def test_the_public_names_are_setproctitles(served: ModuleType) -> None:
    names: dict[str, object] = {}
    exec("from setproctitle import *", names)  # noqa: S102  # there is no other way in a function
    assert sorted(names.keys() - {"__builtins__"}) == sorted(served.__all__)
