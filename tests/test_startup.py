"""What the startup file does: in this process, and in real environments that believe to be on macOS at start."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.environments import ROOT, STARTUP_FILE, SWITCH, Venv, clean_environ

import airflow_setproctitle_shim as shim
from airflow_setproctitle_shim.stderr import say

STATE = """
import json, sys
shim = "airflow_setproctitle_shim"
finders = [type(finder).__module__ for finder in sys.meta_path]
print(json.dumps({"loaded": shim in sys.modules, "finders": finders.count(shim), "platform": sys.platform}))
"""


def state(venv: Venv, **variables: str) -> dict[str, object]:
    """What an interpreter of the environment looks like after start."""
    result: dict[str, object] = json.loads(venv.evaluate(STATE, **variables))
    return result


@pytest.fixture
def mac(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv("setproctitle")


@pytest.fixture
def linux(make_venv: Callable[..., Venv]) -> Venv:
    if sys.platform == "darwin":
        pytest.skip("needs a system that is not macOS")
    return make_venv("setproctitle", macos=False)


@pytest.fixture
def mac_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process believes to run on a Mac, with the variable unset, and is left as it was."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv(SWITCH, raising=False)
    sys.modules.pop("setproctitle", None)
    finders = list(sys.meta_path)
    yield
    shim.deactivate()
    sys.meta_path[:] = finders


# --- the variable


@pytest.mark.usefixtures("mac_here")
def test_the_variable_switches_it_on_or_off_in_any_case_and_among_blanks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    on = ("", "auto", "on", "1", "true", "yes", "titles")
    for value in (*on, "off", "0", "false", "no", "disable", "disabled"):
        for spelling in (value, f" {value.upper()}\n", f"\t{value.title()} "):
            monkeypatch.setenv(SWITCH, spelling)
            shim.startup()
            assert shim.is_active() == (value in on), spelling
            shim.deactivate()
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("mac_here")
def test_an_unknown_value_is_on_and_named_once_with_what_is_accepted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, " Maybe ")
    shim.startup()
    shim.startup()
    assert shim.is_active()
    [line] = capfd.readouterr().err.splitlines()
    assert f"{SWITCH}='maybe'" in line
    assert all(value in line for value in (shim.ON + shim.OFF) if value)


@pytest.mark.usefixtures("mac_here")
def test_other_platforms_stay_off_whatever_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for platform, value in (("linux", "on"), ("win32", "titles"), ("ios", "maybe")):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setenv(SWITCH, value)
        shim.startup()
    assert not shim.is_active()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
def test_a_mistyped_variable_never_keeps_python_from_running(
    make_venv: Callable[..., Venv], stderr: str
) -> None:
    if "full" in stderr and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full, which Linux has")
    code = "import airflow_setproctitle_shim as shim; print(shim.is_active())"
    command = ["sh", "-c", f'exec "$0" -c "$1" {stderr}', str(make_venv().python), code]
    out = subprocess.check_output(command, env=clean_environ(**{SWITCH: "maybe"}), text=True)
    assert out == "True\n"


@pytest.mark.parametrize("error", [OSError, ValueError, AttributeError])
def test_what_cannot_be_written_to_stderr_harms_nobody(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.StringIO):
        def fileno(self) -> int:
            raise error

    monkeypatch.setattr(sys, "stderr", Broken())
    say("a line")


# --- nothing keeps Python from starting


class Odd:
    """A meta path finder whose == is the argument's result."""

    def __init__(self, equal: Callable[[], bool]) -> None:
        self.equal = equal

    def __eq__(self, other: object) -> bool:
        return self.equal()

    __hash__ = None  # type: ignore[assignment]

    def find_spec(self, *_: object) -> None:
        return None


def no_equality() -> bool:
    raise ValueError("no ==")


@pytest.mark.usefixtures("mac_here")
@pytest.mark.parametrize("equal", [no_equality, lambda: True], ids=["raising", "always true"])
def test_finders_with_an_odd_equality_are_neither_asked_nor_mistaken_for_ours(
    equal: Callable[[], bool],
) -> None:
    odd: Any = Odd(equal)
    sys.meta_path.insert(0, odd)
    assert not shim.is_active()
    shim.startup()
    finders: list[object] = list(sys.meta_path)
    assert shim.is_active() and finders[0] is shim.finder and finders[1] is odd
    sys.meta_path.reverse()
    shim.deactivate()
    assert not shim.is_active() and sum(finder is odd for finder in sys.meta_path) == 1


@pytest.mark.usefixtures("mac_here")
def test_startup_raises_nothing_whatever_sys_and_os_hold(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Vault(dict):  # type: ignore[type-arg]
        def get(self, *_: object) -> str:
            raise OSError("vault")

    for holder, name, value in ((os, "environ", Vault()), (sys, "meta_path", tuple(sys.meta_path))):
        with monkeypatch.context() as patch:
            patch.setattr(holder, name, value)
            shim.startup()
            assert not shim.is_active()
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith("airflow-setproctitle-shim: not switched on: ")


def test_startup_raises_nothing_at_any_depth_of_the_stack() -> None:
    # The call itself must find room, which no function can promise: hence a frame to spare.
    code = """
import sys
import airflow_setproctitle_shim as shim
sys.platform = "darwin"
sys.setrecursionlimit(200)
def dig(depth):
    if depth:
        return dig(depth - 1)
    def started(): shim.startup(); return True
    started()
fit = 0
for depth in range(200):
    try: dig(depth)
    except RecursionError as error:
        names, tb = [], error.__traceback__
        while tb: names.append(tb.tb_frame.f_code.co_name); tb = tb.tb_next
        assert "startup" not in names, (depth, names[-5:])
    else: fit += 1
    shim.deactivate()
assert fit > 50
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


# --- real environments


def test_on_macos_every_interpreter_serves_the_replacement(mac: Venv) -> None:
    assert state(mac) == {"loaded": True, "finders": 1, "platform": "darwin"}
    assert mac.evaluate("import setproctitle; print(setproctitle.__file__)").endswith(
        "replacement.py"
    )


def test_on_linux_nothing_of_ours_is_loaded_and_setproctitle_is_native(linux: Venv) -> None:
    assert state(linux) == {"loaded": False, "finders": 0, "platform": "linux"}
    assert linux.evaluate("import setproctitle as s; print(type(s.setproctitle))") == str(type(len))


def test_switched_off_setproctitle_is_native_in_child_processes_too(mac: Venv) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    assert json.loads(mac.evaluate(code, STATE, **{SWITCH: "off"}))["finders"] == 0


def test_the_wheel_has_this_startup_file_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith((".pth", ".start"))] == [
        "airflow_setproctitle_shim.pth"
    ]
    assert "airflow_setproctitle_shim/py.typed" in names


def test_the_startup_file_is_one_line_of_plain_ascii_and_sorts_before_datahubs() -> None:
    text = (ROOT / "src" / STARTUP_FILE).read_text("ascii")
    assert len(text.splitlines()) == 1
    assert not any(word in text for word in ("exec", "eval", "environ", "base64"))
    assert "_editable_impl_airflow" < STARTUP_FILE < "datahub"
