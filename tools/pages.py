"""Writes and checks what the pages publish: each figure, table, key and heading has one source.

    python tools/pages.py            writes the generated parts
    python tools/pages.py --check    exit status 1, and a diff, where a page says anything else

A generated part stands between <!-- NAME: begin --> and <!-- NAME: end -->. Its source is the code, or
docs/measured.json. JSON keys and headings are explained by hand: of them it is only checked that they
are those of the code. Needs the package, its extra `test`, and nothing that is not committed.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import measured

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests/data"
REPORT = DATA / "crash-reports/python3.12-airflow45124.ips"
sys.path.insert(0, str(ROOT))

from airflow_setproctitle_shim.diagnosis import callers, causes
from benchmarks import run as benchmark


class Part(NamedTuple):
    """A part of a page that is made: its page, its name, and what makes its text of docs/measured.json's path."""

    page: str
    name: str
    make: Callable[[Path], str]


class Names(NamedTuple):
    """Names that a section of a page explains by hand, and the code's own."""

    page: str
    section: str
    on_page: Callable[[str], Iterable[str]]  # gets the section's text
    in_code: Callable[[], Iterable[str]]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- generated parts


def programs(group: str) -> Callable[[Path], str]:
    """Return what makes the table of a group of programs: who was killed, and whether the work was done."""

    def make(file: Path) -> str:
        # Where both native codes came to the same, one line has both.
        lines: dict[tuple[str, ...], list[str]] = {}
        for row in measured.read("consumers", file):
            if row["group"] == group:
                lines.setdefault(program(row), []).append(row["native"])
        head = ("program", "its work", "without the shim", "with it", "by")
        return table(head, [[*cells, ", ".join(natives)] for cells, natives in lines.items()])

    return make


def program(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what a line of the table says of a program's runs."""
    name = " ".join(filter(None, (row["program"], row["version"], row["setup"])))
    work = f"{row['does']}. {row['note']}" if row["note"] else row["does"]
    killed = f"{row['deaths_before']}{' or more' if row['or_more'] else ''} killed"
    before = f"{killed}; given up" if row["given_up"] else f"{killed}, {done(row['work_before'])}"
    after = "not run"
    if row["work_after"] is not None:
        after = f"{row['deaths_after']} killed, {done(row['work_after'])}"
    return name, work, before, after


def done(work: bool) -> str:
    return "work done" if work else "work not done"


def numbers(file: Path) -> str:
    """The same in a sentence or two."""
    rows = [row for row in measured.read("consumers", file) if row["group"] == "dies"]
    harmed, helped, setups = set(), set(), set()
    for row in rows:
        setup = (row["program"], row["version"], row["setup"])
        setups.add(setup)
        if row["deaths_before"] and not row["work_before"]:
            harmed.add(setup)
        if row["work_after"] and not row["deaths_after"]:
            helped.add(setup)
    return (
        f"On a simulated Mac, {len(harmed)} of {len(setups)} set-ups of {len({program for program, *_ in setups})} programs lost "
        f"processes and work without it. With it, {len(helped)} lost none and did their work."
    )


def who(_: Path) -> str:
    """Who needs the shim."""
    return table(("on macOS you run", "do you need it?"), callers.readme_rows())


def releases(file: Path) -> str:
    """Which of Apple's functions each release calls."""
    rows = measured.read("macos", file)
    return table(list(rows[0]), [list(row.values()) for row in rows])


def costs(file: Path) -> str:
    """What the shim costs on each Python, and the most that it may cost."""
    run = measured.read("benchmark", file)
    columns = {
        python: [benchmark.Figure(**figure) for figure in figures]
        for python, figures in run["pythons"].items()
    }
    rows = []
    for figures in zip(*columns.values()):
        limits = dict.fromkeys(map(benchmark.Figure.at_most, figures, columns))
        rows.append([figures[0].what, *(figure.text for figure in figures), ", ".join(limits)])
    head = ("", *(f"Python {python}" for python in columns), "at most")
    return f"{run['date']}, {run['machine']}:\n\n{table(head, rows)}"


def promise(_: Path) -> str:
    """The most that an interpreter's start may cost."""
    on, off = (benchmark.START_LIMITS[start] for start in (benchmark.ON_MACOS, benchmark.OFF_MACOS))
    return (
        f"- [**Cost**](benchmarks/README.md): a Python 3.11 start takes at most {on['3.11']:.1%} more instructions (others "
        f"{max(on.values()):.1%}; not on macOS {max(off.values()):.1%}; `titles` more)."
    )


PARTS = [
    Part("README.md", "numbers", numbers),
    Part("README.md", "who", who),
    Part("README.md", "promise", promise),
    Part("docs/proof.md", "dies", programs("dies")),
    Part("docs/proof.md", "needs-nothing", programs("needs nothing")),
    Part("docs/proof.md", "fails-anyway", programs("fails for another reason")),
    Part("docs/proof.md", "releases", releases),
    Part("benchmarks/README.md", "costs", costs),
]


# --- names that are explained by hand


def first_column(section: str) -> list[str]:
    """Return what stands as code in the first column of a section's tables."""
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def headings(section: str) -> list[str]:
    """Return the names in a section's headings: "one, another: what is said of them"."""
    found = re.findall(r"^### (.*)", section, re.MULTILINE)
    return [name for heading in found for name in heading.partition(":")[0].split(", ")]


# What stands below these keys has keys of its own: statuses, kinds of files; and status's, in doctor's.
OPEN = {"ends", "looked_at", "shim"}


def keys(value: dict[str, Any], above: str = "") -> set[str]:
    """Return the keys of a JSON object: those of an object below it as "key.below", of a list's as "key[].below"."""
    found = set()
    for key, below in value.items():
        found.add(f"{above}{key}")
        if isinstance(below, dict) and key not in OPEN:
            found |= keys(below, f"{above}{key}.")
        for item in below if isinstance(below, list) else ():
            if isinstance(item, dict):
                found |= keys(item, f"{above}{key}[].")
    return found


def printed_keys(*arguments: str) -> set[str]:
    """Return the keys of what a command prints with --json. Raises SystemExit if it prints anything else."""
    command = [sys.executable, "-m", "airflow_setproctitle_shim", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    try:
        return keys(json.loads(done.stdout))
    except ValueError:
        raise SystemExit(f"{' '.join(command)} printed no JSON:\n{done.stderr}") from None


@functools.cache
def keys_of(command: str) -> frozenset[str]:
    """Return the keys of a command's JSON, as it prints them when it has something of each kind to tell."""
    if command == "probe":
        return frozenset(printed_keys("probe", "-n", "1"))
    if command == "doctor":
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "cut-off.ips").write_bytes(REPORT.read_bytes()[:1000])
            return frozenset(printed_keys("doctor", str(DATA / "lines"), directory))
    return frozenset(printed_keys(command))


def explained_keys(command: str) -> Names:
    """Return the names for a command's JSON keys."""
    return Names("docs/command-line.md", command, first_column, lambda: keys_of(command))


NAMES = [
    explained_keys("status"),
    explained_keys("probe"),
    explained_keys("doctor"),
    Names(
        "docs/troubleshooting.md",
        "What doctor names",
        headings,
        lambda: [cause.name for cause in causes.ALL],
    ),
]


# --- writing and checking


def generated(text: str, part: Part, file: Path) -> str:
    """Return a page's text with one part made anew. Raises SystemExit if it has no place for it."""
    begin, end = f"<!-- {part.name}: begin -->\n", f"\n<!-- {part.name}: end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f"{part.page} has no part between {begin.strip()} and {end.strip()}")
    return f"{before}{begin}{part.make(file)}{end}{after}"


def section_of(text: str, name: str, page: str) -> str:
    """Return a section's text. Raises SystemExit if the page does not have it."""
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise SystemExit(f"{page} has no section {name!r}")
    return found[1]


def write(root: Path) -> None:
    """Write all generated parts."""
    for part in PARTS:
        page = root / part.page
        text = page.read_text(encoding="utf-8")
        new = generated(text, part, root / "docs/measured.json")
        page.write_text(new, encoding="utf-8")


def differences(root: Path) -> list[str]:
    """Return the lines of a diff between what the pages say and what is so."""
    lines: list[str] = []
    for part in PARTS:
        text = (root / part.page).read_text(encoding="utf-8")
        new = generated(text, part, root / "docs/measured.json")
        lines += diff(text.splitlines(), new.splitlines(), part.page, f"source of {part.name}")
    for names in NAMES:
        text = section_of(
            (root / names.page).read_text(encoding="utf-8"), names.section, names.page
        )
        on_page, in_code = sorted(names.on_page(text)), sorted(names.in_code())
        lines += diff(on_page, in_code, f"{names.page}, {names.section}", "the code")
    return lines


def diff(page: Sequence[str], source: Sequence[str], page_name: str, source_name: str) -> list[str]:
    return list(difflib.unified_diff(page, source, page_name, source_name, n=0, lineterm=""))


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check every page; return the exit status."""
    if arguments not in ([], ["--check"]):
        print(
            f"not understood: {' '.join(arguments)}; there is --check, or nothing", file=sys.stderr
        )
        return 2
    if not arguments:
        write(root)
    found = differences(root)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
