"""Runs every check on every Python that is found, prints the table, and writes the results file.

    python tests/compatibility/matrix.py [--debian DIRECTORY] [--only 3.15 ...]

As root it makes a Debian sid in the directory for Python 3.14 and 3.15, unless there is one. Exit
status 0: every cell holds and no required Python is missing; 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from environments import ROOT, uv

from compatibility import page
from compatibility.checks import CHECKS, UNIT_TESTS, NotHere, Subject
from compatibility.pythons import REQUIRED, WANTED, Python, debian, found, inside, stock, venv_of

ROWS = [*CHECKS, UNIT_TESTS]
TOOLS = ["hypothesis", "pytest"]


def main() -> int:
    """Run the matrix and return the exit status."""
    options = _options()
    no_debian = debian(options.debian)
    pythons = [python for python in found(options.debian) if python.name in options.only]
    missing = {name: "not found" for name in options.only if name not in [p.name for p in pythons]}
    if no_debian:
        missing.update({name: no_debian for name in missing if name in ("3.14", "3.15")})
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as pool:
        uv("build", "--quiet", "--wheel", "--out-dir", directory, str(ROOT))
        [wheel] = Path(directory).glob("*.whl")
        columns = list(pool.map(lambda python: _column(python, wheel), pythons))
    results = {
        "pythons": {python.name: python.version for python in pythons},
        "missing": missing,
        "cells": {
            check.name: {p.name: cells[check.name] for p, cells in zip(pythons, columns)} for check in ROWS
        },
    }
    if options.only is WANTED:
        page.save("matrix", results)
    print(page.matrix(results))
    failed = sum(cell.startswith("FAIL") for cells in columns for cell in cells.values())
    lacking = [name for name in missing if name in REQUIRED]
    print(
        f"\n{failed} of {sum(map(len, columns))} cells fail. Required Pythons missing: {lacking or 'none'}."
    )
    return 1 if failed or lacking else 0


def _column(python: Python, wheel: Path) -> dict[str, str]:
    """Return what each check came to on the Python: "ok", "n/a: why" or "FAIL: why"."""
    temporary = python.root / "var/tmp" if python.prefix else None
    with tempfile.TemporaryDirectory(prefix="shim-matrix-", dir=temporary) as directory:
        try:
            subject = _subject(python, Path(directory), wheel)
        except AssertionError as error:
            return {check.name: f"FAIL: no environment: {error}" for check in ROWS}
        return {check.name: _cell(check.run, subject) for check in ROWS}


def _subject(python: Python, directory: Path, wheel: Path) -> Subject:
    """Return two environments of the Python with the wheel and, where there is a build, setproctitle."""
    shim = str(wheel)
    if python.prefix:
        stock(directory, [shim, *TOOLS])
        shim = inside(python.root, directory / "wheels" / wheel.name)
    native = not python.name.startswith("PyPy")
    requirements = [shim, *TOOLS, *(["setproctitle"] if native else [])]
    mac, linux = (venv_of(python, directory / name, requirements) for name in ("mac", "linux"))
    mac.simulate_macos()
    major, minor = python.version.split(".")[:2]
    return Subject(mac, linux, (int(major), int(minor)), native)


def _cell(run: Callable[[Subject], None], subject: Subject) -> str:
    try:
        run(subject)
    except NotHere as reason:
        return f"n/a: {reason}"
    except Exception as error:  # noqa: BLE001  # the table must be printed to its end
        return f"FAIL: {type(error).__name__}: {error}"
    return "ok"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debian", type=Path, default=Path("/var/tmp/sid-pythons"), metavar="DIRECTORY")
    parser.add_argument("--only", nargs="+", choices=WANTED, default=WANTED, metavar="PYTHON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
