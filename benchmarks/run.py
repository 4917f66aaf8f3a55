"""The benchmark: what the shim costs at interpreter start, import, call and miss, beside its peers.

    python benchmarks/run.py [--only start,import,...] [--python 3.11,...] [--quick] [--json FILE]

It makes throw-away environments, prints one table, and needs uv (in the extra `test`), valgrind and
hyperfine. See README.md for how to read the table.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from declared import ACTIVE, AIRFLOW, GOALS, INACTIVE, LINES, OURS, SETPROCTITLE, STARTS, VERSIONS, Start
from machine import (
    Command,
    Missing,
    Python,
    Venv,
    Workshop,
    paired,
    peak_memories,
    python,
    require,
    wall_times,
)

SWITCH = "AIRFLOW_SETPROCTITLE_SHIM"
MEASURES = ("instructions", "seconds", "memory")


@dataclass
class Figure:
    """A measured value, and what it is compared with if anything."""

    value: float
    base: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.base if self.base else None


@dataclass
class Row:
    """A line of the table."""

    section: str
    what: str
    over: str
    figures: dict[str, Figure] = field(default_factory=dict)
    state: str = ""
    note: str = ""
    verdicts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What every section is given."""

    workshop: Workshop
    python: Python
    quick: bool

    @property
    def rounds(self) -> int:
        """How many rounds the noisy measures take."""
        return 2 if self.quick else 5


def start(run: Run) -> Iterator[Row]:
    """Start and end of `python -c pass`, for each environment declared."""
    section = f"start {run.python.version}"
    rows: list[tuple[Row, Command, Command]] = []
    for declared in STARTS:
        if run.quick and OURS not in declared.requirements:
            continue
        row = Row(section, declared.name, declared.over, state=declared.state)
        try:
            live, base = _start_environments(run, declared)
            instructions = [venv.instructions("pass", **declared.environ) for venv in (live, base)]
        except (AssertionError, RuntimeError) as error:
            row.note = f"missing: {str(error).strip().splitlines()[-1]}"
            yield row
            continue
        row.figures["instructions"] = Figure(*instructions)
        environ = tuple(declared.environ.items())
        rows.append((row, Command(live, ("-c", "pass"), environ), Command(base, ("-c", "pass"), environ)))
    commands = [command for _, *pair in rows for command in pair]
    for measure, taken in (("seconds", wall_times), ("memory", peak_memories)):
        rounds = taken(commands, run.rounds)
        for (row, _, _), values, bases in zip(rows, rounds[::2], rounds[1::2]):
            row.figures[measure] = Figure(*paired(values, bases))
    for row, _, _ in rows:
        if not row.over:
            row.figures = {measure: Figure(figure.value) for measure, figure in row.figures.items()}
    _judge_against_peers([row for row, _, _ in rows])
    yield from (row for row, _, _ in rows)


def _start_environments(run: Run, declared: Start) -> tuple[Venv, Venv]:
    """Return the environment as declared and its twin that it is compared with."""
    live = run.workshop.venv(run.python, *declared.requirements, macos=declared.macos)
    for pattern, name in declared.moved.items():
        next(live.site_packages.glob(pattern)).rename(live.site_packages / name)
    live.write(dict(declared.files))
    base = run.workshop.twin(live)
    if declared.over == "no file":
        for name in declared.files:
            (base.site_packages / name).unlink()
    else:
        base.make_inert()
    return live, base


def _judge_against_peers(rows: Sequence[Row]) -> None:
    """Say of our rows whether they add fewer instructions than every peer in the same state."""

    def added(row: Row) -> float:
        figure = row.figures["instructions"]
        return figure.value - (figure.base or 0)

    for row in rows:
        peers = [peer for peer in rows if peer.state == row.state and not peer.what.startswith("ours")]
        if row.what.startswith("ours") and peers:
            best = min(peers, key=added)
            verdict = "met" if added(row) < added(best) else "NOT MET"
            row.verdicts.append(
                f"cheaper than {best.what}: {verdict} ({added(row) / added(best):.2f} of its)"
            )


IMPORT = """
import gc, sys
gc.disable()
{before}
padding = [sys.intern("padding%d" % number) for number in range({padding})]
import {name}
"""


def imports(run: Run) -> Iterator[Row]:
    """`import setproctitle`, real and ours, collector off: a collection is worth 10 M instructions.

    The median over programs that differ in how many strings they hold, because the cost of a few
    allocations depends on what was allocated before.
    """
    venv = run.workshop.venv(run.python, OURS, SETPROCTITLE, macos=True)

    floor = run.workshop.twin(venv)
    (floor.site_packages / "airflow_setproctitle_shim/replacement.py").write_text("")

    def cost(venv: Venv, before: str, padding: int, environ: dict[str, str]) -> int:
        importing, nothing = (
            venv.instructions(IMPORT.format(before=before, padding=padding, name=name), **environ)
            for name in ("setproctitle", "sys")
        )
        return importing - nothing

    for what, before in (("cold", ""), ("with logging loaded", "import logging")):
        ours, real, empty = (
            statistics.median(cost(where, before, padding, environ) for padding in (0, 150, 700))
            for where, environ in ((venv, {}), (venv, {SWITCH: "off"}), (floor, {}))
        )
        yield Row("import", what, "the real one", {"instructions": Figure(ours, real)})
        floor_row = Row("import", f"floor: an empty module, {what}", "the real one")
        floor_row.figures["instructions"] = Figure(empty, real)
        yield floor_row


CALL = "import timeit; print(min(timeit.repeat('s(title)', 'from setproctitle import setproctitle as s; title = \"airflow worker -- LocalExecutor: idle\"', number=20_000, repeat=5)) / 20_000)"
CALLS = "from setproctitle import setproctitle as s\nfor _ in range({}): s('airflow worker -- LocalExecutor: idle')"


def call(run: Run) -> Iterator[Row]:
    """A call of setproctitle(), wall time and instructions (the kernel's are not counted)."""
    with_shim = run.workshop.venv(run.python, OURS, SETPROCTITLE, "processtitle", macos=True)
    fallback = run.workshop.venv(run.python, SETPROCTITLE)
    for library in fallback.site_packages.glob("setproctitle/*.so"):
        library.unlink()
    variants = {
        "real": (with_shim, {SWITCH: "off"}),
        "ours": (with_shim, {}),
        "ours, titles": (with_shim, {SWITCH: "titles"}),
        "upstream's fallback, checks nothing": (fallback, {}),
    }
    seconds: dict[str, list[float]] = {what: [] for what in variants}
    for _ in range(run.rounds):
        for what, (venv, environ) in variants.items():
            seconds[what].append(float(venv.run("-c", CALL, **environ)))
    instructions = {
        what: (
            venv.instructions(CALLS.format(1000), **environ) - venv.instructions(CALLS.format(0), **environ)
        )
        / 1000
        for what, (venv, environ) in variants.items()
    }
    for what in variants:
        compared = what != "real"
        yield Row(
            "call",
            what,
            "real" if compared else "",
            {
                "instructions": Figure(instructions[what], instructions["real"] if compared else None),
                "seconds": Figure(*paired(seconds[what], seconds["real"]))
                if compared
                else Figure(statistics.median(seconds[what])),
            },
        )


MISS = """
import airflow_setproctitle_shim as ours
class Empty:
    def find_spec(self, name, path=None, target=None):
        return None
def ask(finder):  # as importlib._bootstrap._find_spec() does
    for _ in range({}):
        find_spec = finder.find_spec
        find_spec("airflow.models", None, None)
ask({})
"""
COUNT = """
import sys
class Counter:
    names = []
    def find_spec(self, name, path=None, target=None):
        self.names.append(name)
sys.meta_path.insert(0, Counter())
import airflow
sizes = [len(vars(module)) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
print(f"finder was asked: {len(Counter.names)} calls; {len(sizes)} modules, {sum(sizes) / len(sizes):.0f} globals each")
"""
SCALING = """
import sys
import airflow_setproctitle_shim as ours
class Imported:
    def find_spec(self, name, path=None, target=None):
        return type(sys.__spec__)(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        pass
class Empty:
    def find_spec(self, name, path=None, target=None):
        return None
sys.meta_path[:] = [{finder}, Imported()]
for number in range({count}):
    __import__("imported%d" % number)
"""


def miss(run: Run) -> Iterator[Row]:
    """What the finder costs every import that is not setproctitle's."""
    venv = run.workshop.venv(run.python, OURS, SETPROCTITLE)

    def per_call(finder: str) -> float:
        calls, none = (venv.instructions(MISS.format(count, finder)) for count in (10_000, 0))
        return (calls - none) / 10_000

    ours = per_call("ours.finder")
    figure = Figure(ours, per_call("Empty()"))
    yield Row("miss", "find_spec() of another name", "an empty one", {"instructions": figure})

    for count in (10, 1_000) if run.quick else (10, 1_000, 100_000):
        with_ours, with_empty, without = (
            venv.instructions(SCALING.format(finder=finder, count=count)) / count
            for finder in ("ours.finder", "Empty()", "Imported()")
        )
        figure = Figure(with_ours - without, with_empty - without)
        yield Row("miss", f"each of {count:,} imports", "an empty one", {"instructions": figure})

    if not run.quick:
        airflow = run.workshop.venv(run.python, *AIRFLOW)
        airflow.install("--no-deps", run.workshop.wheel)
        total = airflow.instructions("import airflow")
        note = airflow.run("-c", COUNT).partition("finder was asked: ")[2].strip()
        asked = int(note.split()[0])
        row = Row(
            "miss", "over `import airflow` 3.0.2", "all of it", {"instructions": Figure(asked * ours, total)}
        )
        row.note = note
        yield row


STARTUP_FILE = "airflow_setproctitle_shim.pth"


def distributions(run: Run) -> Iterator[Row]:
    """What the shim adds to a start among 1, 60 and 600 installed distributions.

    "Active" calls activate() from the startup file: simulated macOS would have the import system list
    directories in macOS's way, and that grows with them. Whoever is first to import from site-packages
    has it listed; so the program imports from it too, and "alone" shows what it is without that.
    """
    added: dict[tuple[str, int], int] = {}
    for count in (1, 60, 600):
        inactive = run.workshop.venv(run.python, OURS)
        for number in range(count):
            info = inactive.site_packages / f"project{number}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: project{number}\nVersion: 1.0\n")
            inactive.write({f"project{number}.py": ""})
        inert, active, other = (run.workshop.twin(inactive) for _ in range(3))
        inert.make_inert()
        active.write({STARTUP_FILE: "import airflow_setproctitle_shim as ours; ours.activate()\n"})
        other.write({STARTUP_FILE: "import project0\n"})
        base = inert.instructions("import project0")
        added[INACTIVE, count] = inactive.instructions("import project0") - base
        added[ACTIVE, count] = active.instructions("import project0") - base
        alone = inert.instructions("pass")
        added["active, alone", count] = active.instructions("pass") - alone
        added["an empty module's import, alone", count] = other.instructions("pass") - alone
    for (state, count), instructions in sorted(added.items()):
        figure = Figure(instructions, added[state, 1] if count > 1 else None)
        yield Row("distributions", f"{count}, {state}", "1" if count > 1 else "", {"instructions": figure})


def late(run: Run) -> Iterator[Row]:
    """activate() when native setproctitle and N other modules are loaded."""
    venv = run.workshop.venv(run.python, OURS, SETPROCTITLE)
    program = venv.site_packages / "late.py"
    program.write_text((HERE / "programs/late.py").read_text())
    inside = str(venv.inside / program.relative_to(venv.outside))
    venv.run(inside, "1")
    for count in (10, 100, 1_000, 2_000, 10_000):
        results = [json.loads(venv.run(inside, str(count))) for _ in range(run.rounds)]
        # The fastest, as timeit has it: other processes can only make it slower.
        first, again = (min(result[key] for result in results) for key in ("first", "again"))
        row = Row("late", f"{count:,} modules", "", {"seconds": Figure(first)})
        row.note = f"{results[0]['places']} places rebound; {again * 1000:.2f} ms with wrapt loaded"
        yield row


def commands(run: Run) -> Iterator[Row]:
    """The command line's wall time."""
    venv = run.workshop.venv(run.python, OURS, SETPROCTITLE)
    nothing = Command(venv, ("-c", "pass"))
    for name in ("status", "doctor"):
        row = Row("commands", name, "python -c pass")
        # It may end with 1, when it has something to say.
        code = f"import sys, airflow_setproctitle_shim.diagnosis.cli as c; sys.exit(c.main([{json.dumps(name)}]) == 2)"
        try:
            venv.run("-c", code)
        except RuntimeError as error:
            row.note = f"missing: {str(error).strip().splitlines()[-1]}"
        else:
            taken = wall_times([Command(venv, ("-c", code)), nothing], run.rounds)
            row.figures["seconds"] = Figure(*paired(*taken))
        yield row


def logs(run: Run) -> Iterator[Row]:
    """How long `doctor` takes to read a log of 100 MB, each of whose lines tells of a death, or none does."""
    venv = run.workshop.venv(run.python, OURS)
    program = venv.site_packages / "logs.py"
    program.write_text((HERE / "programs/logs.py").read_text())
    inside = str(venv.inside / program.relative_to(venv.outside))
    megabytes = 10 if run.quick else 100
    for kind, line in LINES.items():
        result = json.loads(venv.run(inside, line, str(megabytes * 10**6)))
        row = Row("logs", f"{megabytes} MB, {kind}", "", {"seconds": Figure(result["seconds"])})
        row.note = f"{result['deaths']:,} deaths"
        yield row


SECTIONS: dict[str, Callable[[Run], Iterator[Row]]] = {
    "start": start,
    "import": imports,
    "call": call,
    "miss": miss,
    "distributions": distributions,
    "late": late,
    "commands": commands,
    "logs": logs,
}


def judge(row: Row) -> None:
    """Add the verdict of every goal that is set for the row."""
    for goal in GOALS:
        if (goal.section, goal.what) == (row.section, row.what) and goal.measure in row.figures:
            figure = row.figures[goal.measure]
            measured = figure.value if figure.ratio is None else figure.ratio
            verdict = "met" if measured <= goal.limit else "NOT MET"
            row.verdicts.insert(0, f"{goal.measure} {goal.text}: {verdict}")


def text(measure: str, value: float) -> str:
    """Return a value with its unit."""
    units = {
        "instructions": ((1e5, 1e6, "M"), (0, 1, "")),
        "seconds": ((0.5, 1, "s"), (5e-4, 1e-3, "ms"), (5e-7, 1e-6, "us"), (0, 1e-9, "ns")),
        "memory": ((0, 2**20, "MiB"),),
    }[measure]
    size, unit = next((size, unit) for least, size, unit in units if abs(value) >= least)
    return f"{value / size:.{0 if size == 1 else 3 if measure == 'instructions' else 2}f} {unit}".strip()


def ratio_text(ratio: float) -> str:
    """Return a ratio: as a difference when it is near one."""
    return (
        f"{(ratio - 1) * 100:+.2f} %"
        if 0.9 <= ratio < 1.1
        else f"{ratio:.2g}x"
        if ratio < 10
        else f"{ratio:.0f}x"
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown, aligned for the eye."""
    head = ["section", "what", "over", "instructions", "", "wall time", "", "peak memory", "", "goal"]
    lines = [head]
    for row in rows:
        cells = [
            row.section,
            f"{row.what} [{row.state}]" if row.state and "ours" not in row.what else row.what,
        ]
        cells.append(row.over)
        for measure in MEASURES:
            figure = row.figures.get(measure)
            cells.append(text(measure, figure.value) if figure else "")
            cells.append(ratio_text(figure.ratio) if figure and figure.ratio is not None else "")
        cells.append("; ".join([*row.verdicts, *filter(None, [row.note])]))
        lines.append(cells)
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    right = range(3, 9)
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths))
        )
        + " |"
        for line in lines
    )


def machine() -> dict[str, str]:
    """Say on what and when this was measured."""
    model = "unknown processor"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "") if sys.platform == "linux" else ""
    return {
        "date": datetime.date.today().isoformat(),
        "system": f"{system}, {platform.system()} {platform.machine()}",
        "processor": model,
    }


def main() -> int:
    """Run what is asked for; print the table. Returns 1 when something needed is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    parser.add_argument("--python", default=",".join(VERSIONS), help="versions whose start is measured")
    parser.add_argument("--quick", action="store_true", help="of starts only our own, few rounds")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    sections, versions = options.only.split(","), options.python.split(",")
    unknown = [section for section in sections if section not in SECTIONS]
    if unknown:
        parser.error(f"unknown section: {', '.join(unknown)} (there are: {', '.join(SECTIONS)})")
    rows: list[Row] = []
    try:
        require("valgrind", "hyperfine")
    except Missing as missing:
        print(f"missing: {missing}", file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        workshop = Workshop(stack)
        for section in sections:
            # How start scales with Python's version matters; the rest is measured on the first.
            for version in versions if section == "start" else versions[:1]:
                try:
                    with python(version) as interpreter:
                        for row in SECTIONS[section](Run(workshop, interpreter, options.quick)):
                            judge(row)
                            rows.append(row)
                            print(f"measured: {row.section}, {row.what}", file=sys.stderr, flush=True)
                except Missing as missing:
                    rows.append(Row(f"{section} {version}", "", "", note=f"missing: {missing}"))
    where = machine()
    print("\n".join([", ".join(where.values()), "", table(rows)]))
    if options.json:
        report = {**where, "rows": [{**asdict(row), "ratios": ratios(row)} for row in rows]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def ratios(row: Row) -> dict[str, float]:
    """Return the row's ratios by measure."""
    return {m: round(f.ratio, 6) for m, f in row.figures.items() if f.ratio is not None}


if __name__ == "__main__":
    sys.exit(main())
