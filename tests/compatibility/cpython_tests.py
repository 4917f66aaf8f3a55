"""Runs CPython's own tests of the import system with the shim active and without it, and compares them.

    python tests/compatibility/cpython_tests.py [--python 3.13]

Each test must end alike, test by test. Exit status 0: they do; 1: they do not, or could not be run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1]))

from environments import ROOT, Venv, clean_environ, uv

from compatibility import page
from compatibility.checks import ACTIVE, Subject
from compatibility.pythons import Python, found

TESTS = (
    "test_import",
    "test_importlib",  # test_threaded_import is a part of it
    "test_modulefinder",
    "test_multiprocessing_fork",
    "test_pkgutil",
    "test_runpy",
    "test_site",
    "test_zipimport",
)

# They make archives of 65,000 files, which takes long.
LEFT_OUT = "*testZip64*"

# Some releases were installed without some tests: 3.11.7 lacks test_multiprocessing_fork.
THERE = """
import importlib.util, os
print(*(name for name in os.environ["NAMES"].split() if importlib.util.find_spec("test." + name)))
"""


def main() -> int:
    """Run the tests both ways, print and save what came of it, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="3.13", metavar="VERSION")
    wanted = parser.parse_args().python
    python = next((python for python in found(Path("/nowhere")) if python.name == wanted), None)
    if python is None:
        print(f"Python {wanted} is not on this machine")
        return 1
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as pool:
        without = _venv(python, Path(directory, "without"))
        active = _venv(python, Path(directory, "active"))
        uv("build", "--quiet", "--wheel", "--out-dir", directory, str(ROOT))
        active.install("setproctitle", *map(str, Path(directory).glob("*.whl")))
        without.install("setproctitle")
        major, minor = map(int, python.name.split("."))
        assert Subject(active, without, (major, minor), True).state(active) == ACTIVE
        there = without.evaluate(THERE, NAMES=" ".join(TESTS)).split()
        off, on = pool.map(lambda venv: _outcomes(venv, there), (without, active))
    results = {**compared(python.version, off, on), "missing": sorted({*TESTS} - {*there})}
    page.save("cpython", results)
    print(page.cpython(results))
    return 1 if results["differences"] or not on else 0


def compared(version: str, off: dict[str, str], on: dict[str, str]) -> dict[str, object]:
    """Return counts for each test file and way of ending, and every test that ended otherwise."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for label, outcomes in (("without the shim", off), ("with the shim", on)):
        for name, outcome in outcomes.items():
            file = counts.setdefault(_file(name), {"without the shim": Counter(), "with the shim": Counter()})
            file[label][outcome] += 1
    differences = {
        name: [off.get(name, "not run"), on.get(name, "not run")]
        for name in sorted({*off, *on})
        if off.get(name) != on.get(name)
    }
    return {"python": version, "files": counts, "differences": differences}


def _file(name: str) -> str:
    """Return the test file's name out of a test's full name."""
    return next((test for test in TESTS if test in name.split(".")), "others")


def _venv(python: Python, path: Path) -> Venv:
    """Return an environment that simulates macOS while it starts."""
    venv = Venv.make(path, python.path)
    venv.simulate_macos()
    return venv


def _outcomes(venv: Venv, tests: list[str]) -> dict[str, str]:
    """Run the tests in the environment; return how each one ended: "passed", "skipped", "failed" or "error"."""
    report = venv.path / "report.xml"
    options = ["--timeout", "600", "--ignore", LEFT_OUT, "--junit-xml", str(report)]
    done = subprocess.run(
        [str(venv.python), "-m", "test", *options, *tests],
        cwd=venv.path,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if not report.exists():
        raise SystemExit(f"CPython's tests did not run:\n{done.stdout[-3000:]}")
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcomes[case.attrib["name"]] = next(
            (kind for kind in ("error", "failure", "skipped") if kind in kinds), "passed"
        )
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
