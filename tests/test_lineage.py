"""The constants that Airflow 3 dropped from airflow.lineage come back where one asks for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.environments import Venv, write

LINEAGE = "AIRFLOW_SETPROCTITLE_SHIM_LINEAGE"
CONSTANTS = {
    "PIPELINE_OUTLETS": "pipeline_outlets",
    "PIPELINE_INLETS": "pipeline_inlets",
    "AUTO": "auto",
}
NAMES = ", ".join(CONSTANTS)

# Airflow's side: what settings.initialize() does, then an import as plugins do it.
INITIALIZE = "import airflow_setproctitle_shim.airflow\n"
PLUGIN = f"from airflow.lineage import {NAMES}\n"
SHOW = f"import json; print(json.dumps(dict(zip({NAMES.split(', ')}, [{NAMES}]))))"


def airflow(path: Path, lineage: str = "") -> str:
    """Make a package airflow with that module lineage; return what to put on PYTHONPATH."""
    write(path / "airflow/__init__.py", "")
    write(path / "airflow/lineage.py", lineage)
    return str(path)


@pytest.fixture
def linux(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv(macos=False)


def test_asked_for_the_constants_are_put_back_and_none_that_is_there_is_overridden(
    linux: Venv, tmp_path: Path
) -> None:
    environ = {"PYTHONPATH": airflow(tmp_path, "AUTO = 'theirs'"), LINEAGE: " Yes\t"}
    shown = json.loads(linux.evaluate(INITIALIZE + PLUGIN + SHOW, **environ))
    assert shown == {**CONSTANTS, "AUTO": "theirs"}


def test_a_module_that_raises_importerror_for_what_it_lacks_gets_the_constants(
    linux: Venv, tmp_path: Path
) -> None:
    lineage = (
        "def __getattr__(name): raise (ImportError if name.isupper() else AttributeError)(name)\n"
    )
    environ = {"PYTHONPATH": airflow(tmp_path, lineage), LINEAGE: "1"}
    assert json.loads(linux.evaluate(INITIALIZE + PLUGIN + SHOW, **environ)) == CONSTANTS


@pytest.mark.parametrize("environ", [{}, {LINEAGE: "OFF"}], ids=repr)
def test_unasked_the_import_fails_as_it_does_without_us(
    linux: Venv, tmp_path: Path, environ: dict[str, str]
) -> None:
    done = linux.run(
        "-c", INITIALIZE + PLUGIN, check=False, PYTHONPATH=airflow(tmp_path), **environ
    )
    assert "ImportError: cannot import name 'PIPELINE_OUTLETS'" in done.stderr
    assert LINEAGE not in done.stderr


def test_an_unknown_value_is_named_with_what_is_accepted_and_counts_as_off(
    linux: Venv, tmp_path: Path
) -> None:
    environ = {"PYTHONPATH": airflow(tmp_path), LINEAGE: "maybe"}
    [line] = linux.run("-c", INITIALIZE, **environ).stderr.splitlines()
    assert f"{LINEAGE}='maybe' is not one of 1, on, true, yes, off, 0, false" in line
    assert linux.run("-c", INITIALIZE + PLUGIN, check=False, **environ).returncode == 1


def test_a_broken_wrapt_does_not_keep_airflow_from_starting(linux: Venv, tmp_path: Path) -> None:
    code = "import logging, sys; logging.basicConfig(); sys.modules['wrapt'] = None\n"
    code += INITIALIZE + "print('started')"
    done = linux.run("-c", code, PYTHONPATH=airflow(tmp_path), **{LINEAGE: "1"})
    assert done.stdout == "started\n"
    why = "ModuleNotFoundError: import of wrapt halted; None in sys.modules"
    assert (
        done.stderr
        == f"WARNING:airflow_setproctitle_shim.lineage:{LINEAGE}=1 has no effect: {why}\n"
    )


def test_code_one_can_change_imports_them_from_a_module_that_does_nothing_else(linux: Venv) -> None:
    code = f"import sys; sys.platform = 'darwin'\nfrom airflow_setproctitle_shim.lineage import {NAMES}\n"
    done = linux.run("-c", code + SHOW, **{LINEAGE: "maybe"})
    assert (json.loads(done.stdout), done.stderr) == (CONSTANTS, "")
    state = (
        "import airflow_setproctitle_shim as shim; print(shim.is_active(), 'wrapt' in sys.modules)"
    )
    assert linux.evaluate(code + state, **{LINEAGE: "on"}) == "False False"
