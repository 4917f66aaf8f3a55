"""Writes what the last run of the slow suite came to into README.md and docs/evidence.md.

python tools/evidence.py          put it there
python tools/evidence.py --check  compare the pages with it, figures aside; exit status 1 if they differ
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def results() -> list[dict[str, Any]]:
    """Return a dictionary for each consumer that was run, as tests/consumers/harness.py recorded it."""
    rows = json.loads((RESULTS / "compatibility/consumers.json").read_text()).values()
    return sorted(rows, key=lambda row: (row["consumer"].lower(), row["version"]))


def consumers() -> str:
    """The table of consumers: how many processes died before and after, and what the work took."""
    rows = [
        "| consumer | version | native code | killed without the shim | killed with it | its work, with it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    notes: list[str] = []
    for result in results():
        if result["why"] and result["why"] not in notes:
            notes.append(result["why"])
        note = f" [{notes.index(result['why']) + 1}]" if result["why"] else ""
        before = ("not run" if result["before"] is None else str(result["before"])) + note
        done = f"done in {result['seconds']} s" if result["done"] else "not done"
        cells = [
            result["consumer"],
            result["version"],
            result.get("native", "stand-in"),
            before,
            str(result["after"]),
            done,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", *(f"[{number}] {why}.  " for number, why in enumerate(notes, 1))])


def numbers() -> str:
    """One sentence for the README: set-ups, those that die without the shim, and deaths with it."""
    ran = results()
    dying = [result for result in ran if result["before"]]
    done = sum(result["done"] for result in ran)
    sentence = (
        f"In the last run, {len(dying)} of {len(ran)} set-ups of real programs (Airflow, gunicorn, Celery and others) "
        f"lost {sum(result['before'] for result in dying):,} processes without the package, before they were "
        f"given up. With it, {done} of {len(ran)} did their work, and {sum(r['after'] for r in ran)} processes died."
    )
    return "\n".join(textwrap.wrap(sentence, 110))


def titles() -> str:
    """What ps shows of a running Airflow, titles remembered and titles shown."""
    parts = []
    for mode, heading in (("auto", "Titles remembered (the default):"), ("titles", "Titles shown:")):
        listing = (RESULTS / f"ps-{mode}.txt").read_text().splitlines()
        shown = [line[:100].rstrip() for line in listing if line.strip() and "resource_tracker" not in line]
        parts += [heading, "", "```", *shown, "```", ""]
    return "\n".join(parts).rstrip()


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"numbers": numbers},
    "docs/evidence.md": {"consumers": consumers, "titles": titles},
}


def generated(page: str, text: str) -> str:
    """Return a page's text with every generated part made anew."""
    for name, make in PARTS[page].items():
        begin, end = (
            f"<!-- {name}: by tools/evidence.py from the last run's results -->\n",
            f"<!-- end of {name} -->",
        )
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise SystemExit(f"{page} has no part named {name}")
        text = f"{before}{begin}{make()}\n{end}{after}"
    return text


def shape(text: str) -> list[str]:
    """Return the text's lines without their figures, in which two runs may differ, and without ps listings."""
    without_listings = re.sub(r"```\n.*?```", "```", text, flags=re.DOTALL)
    # A sentence is wrapped elsewhere when its figures are longer.
    paragraphs = re.sub(r"(?<=[\w,.])\n(?=\w)", " ", without_listings)
    return re.sub(r"\d[\d,]*", "#", paragraphs).splitlines()


def differences(page: str, was: str, now: str) -> list[str]:
    """Return a line for each place where two texts of a page differ in shape."""
    one, other = shape(was), shape(now)
    if len(one) != len(other):
        return [f"{page} has {len(one)} lines, with this run's results it would have {len(other)}"]
    return [f"{page}: {a}\nthis run: {b}" for a, b in zip(one, other) if a != b]


def main() -> int:
    """Write or check every page; return the exit status."""
    complaints = []
    for page in PARTS:
        text = (ROOT / page).read_text()
        new = generated(page, text)
        if "--check" in sys.argv[1:]:
            complaints += differences(page, text, new)
        else:
            (ROOT / page).write_text(new)
    if complaints:
        print(*complaints, "Make it anew with: python tools/evidence.py", sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
