"""The requirements' bounds: nobody's versions change because of us, and both ends of the bounds work."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from compatibility import page
from environments import ROOT, MadeOnce, Venv, clean_environ, uv

# A release of Airflow, and a day in its time.
ERAS = {
    "2.9.3": "2024-07-20",
    "2.10.5": "2025-02-10",
    "2.11.0": "2025-05-25",
    "3.0.6": "2025-09-05",
    "3.1.8": "2026-03-15",
    "3.2.2": "2026-06-01",
    "3.3.2": "2026-10-01",
}
LOWEST = ["importlib-metadata==6.0.0", "wrapt==1.15.0"]
# The tests of what imports them: wrapt in neutralise.py and lineage.py, importlib-metadata in the diagnosis.
WITH_THE_LOWEST = ("doctor", "lineage", "neutralise", "status")


# Among versions that exclude each other, uv settles first those that are asked for directly. In the
# days of 2.9.3 the newest importlib-metadata and OpenTelemetry exclude each other; as we ask for
# importlib-metadata, uv takes OpenTelemetry 1.25 and importlib-metadata 7.1 instead of 1.16 and 8.0.
CHOSEN_OTHERWISE = {"2.9.3": pytest.mark.xfail(strict=True, reason="uv settles our requirement first")}


def resolved(directory: Path, day: str, constraints: dict[str, str], *requirements: str) -> dict[str, str]:
    """Return the versions that uv would install on that day, with constraints as Airflow's users give them."""
    (directory / "in.txt").write_text("\n".join(requirements))
    (directory / "constraints.txt").write_text("\n".join(f"{n}=={v}" for n, v in constraints.items()))
    options = ["--no-header", "--no-annotate", "--exclude-newer", day, "--python-version", "3.11"]
    files = ["--constraints", "constraints.txt", "--upgrade", "--output-file", "out.txt", "in.txt"]
    uv("pip", "compile", *options, *files, cwd=directory)
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (directory / "out.txt").read_text(), re.MULTILINE))


def both(airflow: str, wheel: Path) -> list[str]:
    """Return the requirements for a release of Airflow and the shim."""
    return [f"apache-airflow=={airflow}", f"airflow-setproctitle-shim @ {wheel.as_uri()}"]


@pytest.fixture
def alone(airflow: str, made_once: MadeOnce) -> dict[str, str]:
    """What a release of Airflow resolves to without the shim."""

    def into(directory: Path) -> None:
        versions = resolved(directory, ERAS[airflow], {}, f"apache-airflow=={airflow}")
        (directory / "versions.json").write_text(json.dumps(versions))

    versions: dict[str, str] = json.loads((made_once(f"alone-{airflow}", into) / "versions.json").read_text())
    return versions


@pytest.mark.slow
@pytest.mark.parametrize("airflow", ERAS)
def test_an_airflow_environment_takes_the_shim_without_any_change(
    airflow: str, wheel: Path, tmp_path: Path, alone: dict[str, str]
) -> None:
    assert alone["apache-airflow"] == airflow
    assert resolved(tmp_path, ERAS[airflow], alone, *both(airflow, wheel)) == alone


@pytest.mark.slow
@pytest.mark.parametrize(
    "airflow", [pytest.param(version, marks=CHOSEN_OTHERWISE.get(version, ())) for version in ERAS]
)
def test_airflow_and_the_shim_resolve_to_the_versions_of_airflow_alone(
    airflow: str, wheel: Path, tmp_path: Path, alone: dict[str, str]
) -> None:
    together = resolved(tmp_path, ERAS[airflow], {}, *both(airflow, wheel))
    changed = sorted({name for name, _ in alone.items() ^ together.items()})
    row = {
        "day": ERAS[airflow],
        "packages": str(len(alone)),
        **{name: alone[name] for name in ("wrapt", "importlib-metadata", "setproctitle")},
        "changed by the shim": ", ".join(changed) or "none",
    }
    page.add("bounds", airflow, row)
    assert together == alone


@pytest.mark.slow
@pytest.mark.long
def test_the_lowest_versions_pass_the_tests(tmp_path: Path) -> None:
    venv = Venv.make(tmp_path / "venv")
    venv.install("--resolution", "lowest-direct", "-e", f"{ROOT}[test]")
    installed = venv.evaluate(
        "from importlib.metadata import version as v\nfor n in ('importlib-metadata', 'wrapt'): print(f'{n}=={v(n)}')"
    )
    assert installed.split() == LOWEST, "the bounds in pyproject.toml are others"

    # The environments that these tests build get the lowest versions too.
    (tmp_path / "constraints.txt").write_text("\n".join(LOWEST))
    tests = [f"tests/test_{name}.py" for name in WITH_THE_LOWEST]
    # Hundreds of orders of our own calls, which takes the oldest Hypothesis minutes; wrapt has the others.
    tests += ["--deselect", "tests/test_neutralise.py::TestAnyOrder"]
    done = subprocess.run(
        [str(venv.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=clean_environ(UV_CONSTRAINT=str(tmp_path / "constraints.txt")),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]
