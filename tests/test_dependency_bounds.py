"""The requirements' bounds: nobody's versions change because of us, and both ends of the bounds work."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.environments import ROOT, Venv, clean_environ, uv

pytestmark = pytest.mark.slow

# A release of Airflow, and a day in its time.
ERAS = {"2.10.5": "2025-02-10", "3.0.6": "2025-09-05", "3.3.2": "2026-10-01"}
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
# wrapt is imported in neutralise.py and lineage.py, importlib-metadata in the diagnosis.
IMPORTERS = [f"tests/test_{name}.py" for name in ("neutralise", "lineage", "status")]


def resolved(directory: Path, day: str, *requirements: str) -> list[str]:
    """Return what uv would install on that day."""
    (directory / "in.txt").write_text("\n".join(requirements))
    options = ["--no-header", "--no-annotate", "--exclude-newer", day, "--python-version", "3.11"]
    uv("pip", "compile", *options, "--output-file", "out.txt", "in.txt", cwd=directory)
    return re.findall(r"^[\w.-]+==\S+", (directory / "out.txt").read_text(), re.MULTILINE)


@pytest.mark.parametrize("airflow", ERAS)
def test_airflow_and_the_shim_resolve_to_the_versions_of_airflow_alone(
    airflow: str, wheel: Path, tmp_path: Path
) -> None:
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    alone = resolved(tmp_path / "alone", ERAS[airflow], f"apache-airflow=={airflow}")
    both = [f"apache-airflow=={airflow}", f"airflow-setproctitle-shim @ {wheel.as_uri()}"]
    assert f"apache-airflow=={airflow}" in alone
    assert resolved(tmp_path / "together", ERAS[airflow], *both) == alone


@pytest.mark.long
def test_the_lowest_versions_pass_the_tests_of_what_imports_them(tmp_path: Path) -> None:
    venv = Venv.make(tmp_path / "venv")
    venv.install("--resolution", "lowest-direct", "-e", str(ROOT))
    venv.install("-e", f"{ROOT}[test]")  # which leaves them as they are
    lowest = re.search(
        r'^dependencies = \["importlib-metadata>=(.*)", "wrapt>=(.*)"\]', PYPROJECT, re.MULTILINE
    )
    show = "from importlib.metadata import version as v; print(v('importlib-metadata'), v('wrapt'))"
    assert lowest and venv.evaluate(show) == ".0 ".join(lowest.groups()) + ".0"
    command = [str(venv.python), "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *IMPORTERS]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
