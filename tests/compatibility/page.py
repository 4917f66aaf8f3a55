"""Writes the result tables of docs/compatibility.md from the results files that the runs have left.

    python tests/compatibility/page.py

A table whose results file is not there stays as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from environments import ROOT
from filelock import FileLock

PAGE = ROOT / "docs/compatibility.md"
RESULTS = ROOT / "results/compatibility"


def save(name: str, results: object) -> None:
    """Write a run's results file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def add(name: str, key: str, row: object) -> None:
    """Put a row into a results file in the place of the one that it had; several processes may do so at once."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with FileLock(RESULTS / f"{name}.lock"):
        file = RESULTS / f"{name}.json"
        save(name, {**(json.loads(file.read_text()) if file.exists() else {}), key: row})


def matrix(results: dict[str, Any]) -> str:
    """The matrix: a row for each check, a column for each Python, and what was missing."""
    pythons = results["pythons"]
    notes: dict[str, list[str]] = {}
    rows = [["", *(f"{name} ({version})" for name, version in pythons.items())]]
    for check, cells in results["cells"].items():
        row = [check]
        for name in pythons:
            verdict, _, reason = cells[name].partition(": ")
            row.append(verdict)
            if reason:
                notes.setdefault(f"{check}: {verdict}, {reason}", []).append(name)
        rows.append(row)
    for name, reason in results["missing"].items():
        notes.setdefault(f"missing: {reason}", []).append(name)
    return "\n".join([table(rows), "", *(f"- {note} ({', '.join(names)})" for note, names in notes.items())])


def bounds(results: dict[str, dict[str, str]]) -> str:
    """What Airflow's requirements resolve to, and what the shim changes in that."""
    head = ["Airflow", *next(iter(results.values()))]
    releases = sorted(results, key=lambda release: [int(part) for part in release.split(".")])
    return table([head, *([release, *results[release].values()] for release in releases)])


def installers(results: dict[str, list[str]]) -> str:
    """What installed the package, and whether all that must hold did."""
    return table(
        [["", "version", "result"], *([way, *results[way]] for way in sorted(results, key=str.lower))]
    )


def cpython(results: dict[str, Any]) -> str:
    """How CPython's own tests ended without and with the shim, and where that differs."""
    kinds = ("passed", "skipped", "failure", "error")
    rows = [[f"CPython {results['python']}", *(f"{kind}, without / with" for kind in kinds)]]
    for file, ways in sorted(results["files"].items()):
        off, on = ways["without the shim"], ways["with the shim"]
        rows.append([file, *(f"{off.get(kind, 0)} / {on.get(kind, 0)}" for kind in kinds)])
    differences = [f"- {name}: {off} / {on}" for name, (off, on) in results["differences"].items()]
    missing = [f"- {test}: not installed with this Python" for test in results["missing"]]
    return "\n".join([table(rows), "", *(differences or ["No test ended otherwise."]), *missing])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "matrix": matrix,
    "installers": installers,
    "bounds": bounds,
    "cpython": cpython,
}


def main() -> None:
    """Rewrite every table whose results are there."""
    text = PAGE.read_text()
    for name, made in TABLES.items():
        file = RESULTS / f"{name}.json"
        if not file.exists():
            print(f"{name}: no results, left as it is")
            continue
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        assert found and ended, f"the page has no place for {name}"
        text = f"{before}{begin}\n{made(json.loads(file.read_text()))}\n{end}{after}"
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
