"""CPython's own tests of the import system end alike, test by test, with the shim and without it."""

from __future__ import annotations

import importlib.util
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest
from environments import Venv, clean_environ

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


def outcomes(venv: Venv, tests: list[str]) -> dict[str, str]:
    """Run the tests in the environment; return how each one ended: "passed" or what the report calls it."""
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
    assert report.exists(), done.stdout[-3000:]
    cases = ElementTree.parse(report).iter("testcase")
    ended = {case.attrib["name"]: {child.tag for child in case} for case in cases}
    bad = ("error", "failure", "skipped")
    return {name: next((kind for kind in bad if kind in kinds), "passed") for name, kinds in ended.items()}


@pytest.mark.slow
@pytest.mark.long
def test_pythons_own_import_tests_end_alike_with_the_shim_and_without_it(
    fresh_venv: Venv, tmp_path: Path
) -> None:
    if importlib.util.find_spec("test") is None:
        pytest.skip("this Python was installed without its `test` package")
    # Some releases were installed without some of them.
    there = [name for name in TESTS if importlib.util.find_spec(f"test.{name}")]
    without = Venv.make(tmp_path / "without")
    without.simulate_macos()
    with ThreadPoolExecutor(2) as pool:
        off, on = pool.map(lambda venv: outcomes(venv, there), (without, fresh_venv))
    assert Counter(off.values())["passed"] > 500
    assert off == on
