"""What the startup files do, in real environments that believe to be on macOS while they start."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import ROOT, STARTUP_FILE, SWITCH, Venv, uv

import airflow_setproctitle_shim as shim

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


def test_on_macos_every_interpreter_serves_the_replacement(mac: Venv) -> None:
    assert state(mac)["finders"] == 1
    assert mac.evaluate("import setproctitle; print(setproctitle.__file__)").endswith("replacement.py")


def test_the_program_after_startup_sees_the_real_platform(mac: Venv) -> None:
    assert state(mac)["platform"] == sys.platform


def test_on_linux_nothing_of_ours_is_loaded_and_setproctitle_is_native(linux: Venv) -> None:
    assert state(linux) == {"loaded": False, "finders": 0, "platform": "linux"}
    assert linux.evaluate("import setproctitle._setproctitle as n; print(n.__file__)").endswith(".so")


@pytest.mark.parametrize("value", shim.ON)
def test_every_spelling_of_on_switches_it_on_silently(mac: Venv, value: str) -> None:
    done = mac.run("-c", STATE, **{SWITCH: f" {value.upper()}\t"})
    assert json.loads(done.stdout)["finders"] == 1
    assert done.stderr == ""


@pytest.mark.parametrize("value", shim.OFF)
def test_every_spelling_of_off_leaves_setproctitle_native(mac: Venv, value: str) -> None:
    switch = {SWITCH: f" {value.title()}\n"}
    assert state(mac, **switch)["finders"] == 0
    assert mac.evaluate("import setproctitle._setproctitle as n; print(n.__file__)", **switch).endswith(".so")


def test_an_unknown_value_is_named_once_with_what_is_accepted_and_counts_as_on(mac: Venv) -> None:
    done = mac.run("-c", STATE, **{SWITCH: "maybe"})
    assert json.loads(done.stdout)["finders"] == 1
    [line] = done.stderr.splitlines()
    assert SWITCH in line and "'maybe'" in line
    assert all(value in line for value in (shim.ON + shim.OFF) if value)


def test_an_unknown_value_survives_a_closed_stderr(mac: Venv) -> None:
    code = f"import subprocess, sys; subprocess.run(['sh', '-c', 'exec 2>&-; exec \"$0\" -c \"$1\"', {str(mac.python)!r}, sys.argv[1]])"
    done = mac.run("-c", code, STATE, **{SWITCH: "maybe"})
    assert json.loads(done.stdout.splitlines()[-1])["finders"] == 1


def test_startup_says_nothing_and_writes_nothing(fresh_venv: Venv) -> None:
    before = sorted(fresh_venv.path.rglob("*"))
    done = fresh_venv.run("-B", "-c", "pass")
    assert (done.stdout, done.stderr) == ("", "")
    assert sorted(fresh_venv.path.rglob("*")) == before


def test_startup_loads_only_the_package_itself(mac: Venv, linux: Venv) -> None:
    code = "import sys; print(*sorted(sys.modules))"
    on_mac, on_linux = (set(venv.evaluate(code).split()) for venv in (mac, linux))
    assert on_mac - on_linux == {"airflow_setproctitle_shim"}


def test_verbose_python_says_who_serves_setproctitle(mac: Venv) -> None:
    done = mac.run("-v", "-c", "import setproctitle")
    assert done.stderr.count("airflow-setproctitle-shim: serves setproctitle from") == 1


def test_the_switch_is_inherited_by_child_processes(mac: Venv) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    done = mac.run("-c", code, STATE, **{SWITCH: "off"})
    assert json.loads(done.stdout)["finders"] == 0


def test_the_startup_file_lies_where_site_looks_and_leaves_with_the_package(fresh_venv: Venv) -> None:
    assert (fresh_venv.site_packages / STARTUP_FILE).is_file()
    uv("pip", "check", "--quiet", "--python", str(fresh_venv.python))
    uv("pip", "uninstall", "--quiet", "--python", str(fresh_venv.python), "airflow-setproctitle-shim")
    assert not list(fresh_venv.site_packages.glob("airflow_setproctitle_shim*"))
    assert fresh_venv.run("-c", "pass").stderr == ""


def test_the_wheel_has_this_startup_file_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith((".pth", ".start"))]
    assert names == ["airflow_setproctitle_shim.pth"]


def test_the_startup_file_is_one_line_of_plain_ascii_and_sorts_before_datahubs() -> None:
    text = (ROOT / "src" / STARTUP_FILE).read_text("ascii")
    assert len(text.splitlines()) == 1
    assert not any(word in text for word in ("exec", "eval", "environ", "base64"))
    assert "_editable_impl_airflow" < STARTUP_FILE < "datahub"
