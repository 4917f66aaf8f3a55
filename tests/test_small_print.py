"""Details that the larger tests cannot tell apart, found by mutation testing (tools/mutate.py)."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from environments import SWITCH

import airflow_setproctitle_shim as shim

PACKAGE = Path(shim.__file__).parent


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Every test starts without setproctitle and leaves the shim off."""
    forget()
    yield
    shim.deactivate()
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "setproctitle"]:
        del sys.modules[name]


def served() -> ModuleType:
    shim.activate()
    return importlib.import_module("setproctitle")


def in_bare_interpreter(path: Path, code: str, *options: str) -> list[str]:
    """Run the code where nothing but the interpreter is loaded and the package comes from `path`."""
    command = [
        sys.executable,
        "-I",
        "-S",
        *options,
        "-c",
        f"import sys; sys.path.insert(0, {str(path)!r}); {code}",
    ]
    printed: list[str] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return printed


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import os; old = set(sys.modules); import airflow_setproctitle_shim; new = set(sys.modules) - old; import json; "
    assert in_bare_interpreter(PACKAGE.parent, code + "print(json.dumps(sorted(new)))") == [shim.__name__]


FACTS = (
    "import airflow_setproctitle_shim as shim; shim.activate(); import setproctitle as s, json; "
    "print(json.dumps([s.__spec__.origin, s.__spec__.cached, s.getproctitle()]))"
)


def test_a_directory_named_like_our_file_does_not_mislead(tmp_path: Path) -> None:
    place = tmp_path / "__init__.pyc" / "site-packages"
    shutil.copytree(PACKAGE, place / PACKAGE.name)
    origin, cached, _ = in_bare_interpreter(place, FACTS)
    assert origin == str(place / PACKAGE.name / "replacement.py")
    assert cached == importlib.util.cache_from_source(origin)


def test_it_serves_from_a_zip_archive(tmp_path: Path) -> None:
    archive = tmp_path / "shim.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in PACKAGE.glob("*.py"):
            file.write(path, f"{PACKAGE.name}/{path.name}")
    origin, _, _ = in_bare_interpreter(archive, FACTS)
    assert origin == str(archive / PACKAGE.name / "replacement.py")


def test_a_process_that_set_no_title_has_its_command_line_for_one() -> None:
    _, _, title = in_bare_interpreter(PACKAGE.parent, FACTS)
    assert title.split()[-1:] in (["s.getproctitle()]))"], ["-c"])


def test_the_replacement_on_its_own_shows_no_titles() -> None:
    code = "import airflow_setproctitle_shim.replacement as r, json; r.setproctitle('title'); "
    modules = in_bare_interpreter(PACKAGE.parent, code + "print(json.dumps(list(sys.modules)))")
    assert f"{shim.__name__}.titles" not in modules


def test_a_verbose_interpreter_serves_too() -> None:
    origin, _, _ = in_bare_interpreter(PACKAGE.parent, FACTS, "-v")
    assert origin == shim.REPLACEMENT


def test_python_3_9_takes_the_program_s_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "orig_argv", raising=False)
    monkeypatch.setattr(sys, "argv", ["program", "argument"])
    assert served().getproctitle() == "program argument"


@pytest.mark.parametrize("function", ["setproctitle", "setthreadtitle"])
def test_the_error_of_an_embedded_null_reads_as_the_c_function_s(function: str) -> None:
    native = importlib.import_module("setproctitle._setproctitle")
    with pytest.raises(ValueError) as theirs:
        getattr(native, function)("a\0b")
    forget()
    with pytest.raises(ValueError) as ours:
        getattr(served(), function)("a\0b")
    assert str(ours.value) == str(theirs.value)


def test_the_version_asked_for_is_setproctitle_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"version of {name}")
    assert served().__version__ == "version of setproctitle"


def test_titles_mode_shows_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(shim.finder, "set_to", shown.append)
    monkeypatch.setenv(SWITCH, "titles")
    served().setproctitle("a title")
    shim.deactivate()
    monkeypatch.setenv(SWITCH, "auto")
    served().setproctitle("another")
    assert (shown, shim.finder.process_title) == (["a title"], b"another")


def test_serving_and_neutralising_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    served()
    shim.deactivate()
    importlib.import_module("setproctitle")
    shim.activate()
    assert capsys.readouterr() == ("", "")


def test_a_wrapper_kept_after_deactivation_calls_the_native_function() -> None:
    native = importlib.import_module("setproctitle")
    before = native.getproctitle()
    shim.activate()
    native.setproctitle("remembered only")
    kept = native.getproctitle
    assert kept() == "remembered only"
    shim.deactivate()
    assert kept() == before


def test_a_module_without_functions_is_neutralised_in_no_place() -> None:
    from airflow_setproctitle_shim import neutralise

    sys.modules["setproctitle"] = ModuleType("setproctitle")
    assert neutralise.neutralise() == 0


def test_a_neutralised_package_has_an_empty_path() -> None:
    native = importlib.import_module("setproctitle")
    path = native.__path__
    shim.activate()
    assert native.__path__ == []
    shim.deactivate()
    assert native.__path__ is path


def test_a_neutralised_module_that_was_reloaded_gets_everything_back() -> None:
    native = importlib.import_module("setproctitle")
    before = {name: id(value) for name, value in vars(native).items()}
    shim.activate()
    importlib.reload(native)
    shim.deactivate()
    assert {name: id(value) for name, value in vars(native).items()} == before


def test_a_class_in_sys_modules_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    native = importlib.import_module("setproctitle")
    odd = type("Odd", (), {"setproctitle": native.setproctitle})
    monkeypatch.setitem(sys.modules, "odd", odd)
    shim.activate()
    assert shim.is_active()
    assert vars(odd)["setproctitle"] is native.setproctitle.__wrapped__
