"""Writes what the last run of real programs came to into docs/proof.md and README.md.

    python tools/evidence.py            put it there
    python tools/evidence.py --check    exit status 1 if the pages say anything else

The results are those that `pytest -m slow tests/test_consumers.py` has left.
"""

from __future__ import annotations

import difflib
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.consumers.declared import CONSUMERS
from support.consumers.harness import RESULTS, Consumer

# A row of results: the consumer, and what harness.record() kept of it.
Row = tuple[Consumer, dict[str, Any]]


def results(root: Path) -> list[Row]:
    """Return a row for each consumer. Raises SystemExit if one has no result."""
    path = root / RESULTS.relative_to(ROOT)
    found = json.loads(path.read_text()) if path.exists() else {}
    missing = [consumer.id for consumer in CONSUMERS if consumer.id not in found]
    if missing:
        raise SystemExit(f"{path} has no result of: {', '.join(missing)}")
    return [(consumer, found[consumer.id]) for consumer in CONSUMERS]


def programs(rows: list[Row]) -> str:
    """The table: how many processes were killed without the shim and with it, and whether the work was done."""
    natives = sorted({result["native"] for _, result in rows})
    lines = [
        f"Loaded without the shim: {', '.join(natives)}.",
        "",
        "| program | version | without the shim | with it |",
        "| --- | --- | --- | --- |",
    ]
    for consumer, result in rows:
        before = f"{result['before']}{' or more' * result['given up']} killed, {work(result['done before'])}"
        after = f"{result['after']} killed, {work(result['done'])}"
        lines.append(f"| {consumer.name} | {consumer.version} | {before} | {after} |")
    return "\n".join(lines)


def work(done: bool) -> str:
    return "work done" if done else "work not done"


def numbers(rows: list[Row]) -> str:
    """A sentence or two for the README."""
    of_all = f"of {len(rows)}"
    without = sum(result["before"] > 0 and not result["done before"] for _, result in rows)
    done = sum(result["done"] for _, result in rows)
    killed = sum(result["after"] for _, result in rows)
    text = (
        f"Without the package, processes of {without} {of_all} set-ups of real programs (Airflow, gunicorn, Celery "
        f"and others) were killed and their work was not done. With it, {done} {of_all} did their work, and "
        f"{killed} processes were killed."
    )
    return "\n".join(textwrap.wrap(text, 110))


PARTS: dict[str, dict[str, Callable[[list[Row]], str]]] = {
    "README.md": {"numbers": numbers},
    "docs/proof.md": {"programs": programs},
}


def generated(page: Path, parts: dict[str, Callable[[list[Row]], str]], rows: list[Row]) -> str:
    """Return a page's text with every generated part made anew. Raises SystemExit if it has no place for one."""
    text = page.read_text(encoding="utf-8")
    for name, make in parts.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise SystemExit(f"{page} has no part between {begin.strip()} and {end}")
        text = f"{before}{begin}{make(rows)}\n{end}{after}"
    return text


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check every page; return the exit status."""
    if arguments not in ([], ["--check"]):
        print(
            f"not understood: {' '.join(arguments)}; there is --check, or nothing", file=sys.stderr
        )
        return 2
    rows = results(root)
    differ = 0
    for name, parts in PARTS.items():
        page = root / name
        text, new = page.read_text(encoding="utf-8"), generated(page, parts, rows)
        if not arguments:
            page.write_text(new, encoding="utf-8")
        elif text != new:
            differ = 1
            lines = (text.splitlines(), new.splitlines())
            print(*difflib.unified_diff(*lines, name, "the last run", n=0, lineterm=""), sep="\n")
    return differ


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
