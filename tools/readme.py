"""Writes the README's generated parts from the results of the last run of the slow suite.

python tools/readme.py          put them into README.md
python tools/readme.py --check  compare README.md with them, figures aside; exit status 1 if it differs
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def consumers() -> str:
    """The table of consumers: how many processes died before and after, and what the work took."""
    rows = [
        "| consumer | version | killed without the shim | killed with it | its work, with it |",
        "| --- | --- | --- | --- | --- |",
    ]
    notes: list[str] = []
    for line in (RESULTS / "consumers.jsonl").read_text().splitlines():
        result = json.loads(line)
        if result["why"] and result["why"] not in notes:
            notes.append(result["why"])
        note = f" [{notes.index(result['why']) + 1}]" if result["why"] else ""
        before = ("not run" if result["before"] is None else str(result["before"])) + note
        done = f"done in {result['seconds']} s" if result["done"] else "not done"
        rows.append(f"| {result['consumer']} | {result['version']} | {before} | {result['after']} | {done} |")
    return "\n".join([*rows, "", *(f"[{number}] {why}.  " for number, why in enumerate(notes, 1))])


def titles() -> str:
    """What ps shows of a running Airflow, titles remembered and titles shown."""
    parts = []
    for mode, heading in (("auto", "Titles remembered (the default):"), ("titles", "Titles shown:")):
        listing = (RESULTS / f"ps-{mode}.txt").read_text().splitlines()
        shown = [line[:100].rstrip() for line in listing if line.strip() and "resource_tracker" not in line]
        parts += [heading, "", "```", *shown, "```", ""]
    return "\n".join(parts).rstrip()


PARTS = {"consumers": consumers, "titles": titles}


def generated(text: str) -> str:
    """Return README's text with every generated part made anew."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- {name}: .*? -->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, made=make: f"{match[1]}{made()}\n{match[3]}", text)
        if count != 1:
            raise SystemExit(f"README.md has {count} parts named {name}, not 1")
    return text


def shape(text: str) -> list[str]:
    """Return the text's lines without their figures, in which two runs may differ, and without ps listings."""
    without_listings = re.sub(r"```\n.*?```", "```", text, flags=re.DOTALL)
    return re.sub(r"\d+", "#", without_listings).splitlines()


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    new = generated(text)
    if "--check" not in sys.argv[1:]:
        readme.write_text(new)
        return 0
    different = [(was, now) for was, now in zip(shape(text), shape(new)) if was != now]
    for was, now in different:
        print(f"README.md: {was}\nthis run:  {now}")
    if not different and len(shape(text)) != len(shape(new)):
        different = [("", "")]
        print(
            f"README.md has {len(shape(text))} lines, with this run's results it would have {len(shape(new))}"
        )
    if different:
        print("Make it anew with: python tools/readme.py")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
