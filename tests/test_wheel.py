"""What is in the wheel, beside the code, and what it leads to."""

from __future__ import annotations

import zipfile
from pathlib import Path

from environments import STARTUP_FILE, Venv

# As pluggy loads them for Airflow, in an interpreter whose startup file was not run.
AS_AIRFLOW_DOES = """
import sys
import importlib_metadata
sys.platform = "darwin"
loaded = [entry_point.load() for entry_point in importlib_metadata.entry_points(group="airflow.policy")]
import setproctitle
print(len(loaded), setproctitle.__spec__.origin)
"""


def test_type_checkers_are_told_that_the_package_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "airflow_setproctitle_shim/py.typed" in archive.namelist()


def test_airflows_entry_point_leads_to_the_module_that_switches_on(fresh_venv: Venv) -> None:
    (fresh_venv.site_packages / STARTUP_FILE).unlink()
    count, origin = fresh_venv.evaluate(AS_AIRFLOW_DOES).split()
    assert count == "1" and origin.endswith("airflow_setproctitle_shim/replacement.py")


def test_the_program_of_the_wheel_is_the_command_line(fresh_venv: Venv) -> None:
    program = fresh_venv.path / "bin/airflow-setproctitle-shim"
    module = fresh_venv.run("-m", "airflow_setproctitle_shim", "--help").stdout
    assert fresh_venv.run(str(program), "--help").stdout == module
