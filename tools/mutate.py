"""Mutation testing: changes src/ in one place at a time and sees whether the fast tests notice.

    pip install -e '.[test]' && uv pip install --group mutation
    python tools/mutate.py                   all mutants: an hour or more
    python tools/mutate.py --tenth           a random tenth; --seed N repeats one
    python tools/mutate.py --files cli.py    those of some files only

Needs Python 3.11 or later. Prints each mutant that the tests let live, when it is found and again at the end.
Exit status 1: the score is below 95 %, or a survivor is not in survivors.toml with the reason why it may live. What
a part comes to is only printed.

mutmut makes the mutants. Its runner keeps all of them in one module, which changes what tracebacks, pickle and
inspect see, so each is written to a copy of the project here. One run of the fast tests, under coverage, tells
which tests execute which line; a mutant is shown to those only, the fastest first, and then to the tests that
start interpreters of their own. Left out are wording, which is a string of several words without a prefix, and
mutmut's second and third mutant of the same string.

Killed mutants are kept in results/mutants.jsonl, so that an interrupted run goes on where it was; --fresh forgets.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
import venv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import libcst
import psutil
import pytest
import tomllib
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation.file_mutation import create_mutations

ROOT = Path(__file__).parent.parent
PACKAGE = Path("src/airflow_setproctitle_shim")
KILLED = ROOT / "results/mutants.jsonl"
WANTED = 95.0
OPTIONS = ["-qx", "-n0", "-p", "no:cacheprovider", "-p", "no:randomly", "--hypothesis-seed=0"]

# Tests that import nothing of the package.
OUTSIDE = [
    "test_compatibility_page.py",
    "test_consumers.py",
    "test_debian_sid.py",
    "test_docs.py",
    "test_installers.py",
    "test_project_files.py",
    "test_pypi_page.py",
    "test_release.py",
]

# Tests that run a file in other interpreters, where no coverage is measured, or run no line of it after import.
ELSEWHERE = {
    "__init__.py": [
        "test_finder.py",
        "test_startup.py",
        "test_switch.py",
        "test_import_system.py",
        "test_robust_switch.py",
        "test_small_print.py",
        "test_titles.py",
    ],
    "__main__.py": ["test_command_line.py"],
    "airflow.py": ["test_airflow_entry_point.py", "test_lineage.py"],
    "as_site_customize.py": ["test_sitecustomize.py"],
    "lineage.py": ["test_lineage.py"],
    "replacement.py": ["test_startup.py", "test_import_system.py"],
    "neutralise.py": ["test_neutralise.py", "test_import_system.py", "test_small_print.py"],
    "packaged.py": ["test_packaged.py"],
    "titles.py": ["test_titles.py"],
    "diagnosis/cli.py": ["test_command_line.py"],
    "diagnosis/finding.py": ["test_deaths.py", "test_doctor.py", "test_command_line.py"],
    "diagnosis/probe.py": ["test_probe.py"],
    "diagnosis/probe_child.py": ["test_probe.py"],
    "diagnosis/state.py": ["test_status.py"],
}


@dataclass(frozen=True)
class Mutant:
    """A file with one change; `change` is the lines that went and came, `lines` where they went from."""

    file: str
    change: str
    lines: tuple[int, ...]
    source: str

    @property
    def key(self) -> str:
        """What names this mutant as long as nothing else in its file changes."""
        return hashlib.sha256(f"{self.file}\0{self.source}".encode()).hexdigest()


def mutants(file: str) -> list[Mutant]:
    """Return all mutants of a file of the package that differ from each other, those of wording left out."""
    original = (ROOT / PACKAGE / file).read_text()
    module, mutations, _, _ = create_mutations(file, original)
    places = MetadataWrapper(module, unsafe_skip_copy=True).resolve(WhitespaceInclusivePositionProvider)
    starts = [0, *itertools.accumulate(len(line) for line in original.splitlines(keepends=True))]
    sources = []
    for mutation in mutations:
        was, now = mutation.original_node, mutation.mutated_node
        if isinstance(was, libcst.SimpleString) and is_idle(was, now):
            continue
        place = places[was]
        start, end = (starts[at.line - 1] + at.column for at in (place.start, place.end))
        if original[start:end] == module.code_for_node(was):
            sources.append(original[:start] + module.code_for_node(now) + original[end:])
        else:  # A whole function; this takes a tenth of a second.
            mutated = module.deep_replace(was, now)
            assert isinstance(mutated, libcst.Module)
            sources.append(mutated.code)
    return [Mutant(file, *changed(original, source), source) for source in dict.fromkeys(sources)]


def is_idle(was: libcst.SimpleString, now: libcst.CSTNode) -> bool:
    """Whether a string's mutant is wording, or the same string's in other letters: mutmut makes three of one."""
    wording = not was.prefix and re.search(r"\w.* .*\w", was.raw_value)
    return bool(wording) or not (isinstance(now, libcst.SimpleString) and now.raw_value.startswith("XX"))


def changed(original: str, source: str) -> tuple[str, tuple[int, ...]]:
    """Return the lines that differ, without their place, so that it stays the same while others change; and the place."""
    was, now = original.splitlines(), source.splitlines()
    start = next((n for n, (a, b) in enumerate(zip(was, now)) if a != b), min(len(was), len(now)))
    rest = min(len(was), len(now)) - start
    end = next((n for n in range(rest) if was[-1 - n] != now[-1 - n]), rest)
    gone, come = was[start : len(was) - end], now[start : len(now) - end]
    said = [f"- {line.strip()}" for line in gone] + [f"+ {line.strip()}" for line in come]
    return "\n".join(said), tuple(range(start + 1, start + 1 + max(1, len(gone))))


class Watch:
    """A pytest plugin: notes how long each test takes, and which lines of the package it executes."""

    def __init__(self, copy: Path) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.coverage = coverage.Coverage(data_file=None, source=[str(copy / PACKAGE)], config_file=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.coverage.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def tests(self, copy: Path) -> dict[str, dict[int, list[str]]]:
        """Return for each file and line the tests that execute it, fastest first; line 0: the whole file's."""
        data = self.coverage.get_data()
        found: dict[str, dict[int, list[str]]] = {}
        for path in data.measured_files():
            lines = {line: set(tests) - {""} for line, tests in data.contexts_by_lineno(path).items()}
            lines[0] = set().union(*lines.values())
            found[str(Path(path).relative_to(copy / PACKAGE))] = {
                line: sorted(tests, key=lambda test: self.seconds[test]) for line, tests in lines.items()
            }
        return found


def run_tests(
    copy: Path, tests: Sequence[str], plugins: Sequence[object] = (), *, cached: bool = False
) -> int:
    """Run tests of a copy of the project in this process, which must be one made for it; return pytest's status.

    Bytecode is written only if `cached`: of two mutants, one could be taken for the other.
    """
    os.chdir(copy)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Some mutants leave files.
    own = {"PYTHONPATH": str(copy / "src"), "TMPDIR": str(copy / ".venv/tmp")}
    os.environ.update(own, PATH=path, PYTHONDONTWRITEBYTECODE="1")
    tempfile.tempdir = None
    sys.dont_write_bytecode = not cached
    sys.executable = str(copy / ".venv/bin/python")
    sys.path[:0] = [str(copy / "src")]
    return int(pytest.main([*OPTIONS, "-c", str(copy / "pyproject.toml"), *tests], plugins=list(plugins)))


def make_venv(copy: Path) -> None:
    """Make the copy an environment in which it comes before the package installed here, and a place for files.

    Tests start its Python without PYTHONPATH.
    """
    venv.create(copy / ".venv", symlinks=True)
    (copy / ".venv/tmp").mkdir()
    [site_packages] = copy.glob(".venv/lib/*/site-packages")
    here = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    (site_packages / "the_copy.pth").write_text(f"{copy / 'src'}\n{here}\n")


def in_a_process(limit: float, function: Any, *arguments: Any) -> int | None:
    """Run the function in a process forked from this one, silently; return its result, None if that takes longer
    than `limit` seconds."""

    def quietly() -> None:
        os.setsid()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os._exit(function(*arguments))

    process = multiprocessing.get_context("fork").Process(target=quietly)
    process.start()
    process.join(limit)
    ended = process.exitcode is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    end_what_is_left()
    return process.exitcode if ended else None


def end_what_is_left() -> None:
    """End what a mutant has left in sessions of its own, where killpg() does not reach; some fork for ever."""
    copy = os.environ["MUTATE_COPY"]
    while left := [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.pid != os.getpid()
        and process.info["status"] != psutil.STATUS_ZOMBIE
        and any(f"{copy}/" in word for word in process.info["cmdline"] or ())
    ]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


Suite = tuple[list[str], float]  # tests, and the seconds after which they count as hanging


def is_killed(mutant: Mutant, suites: Iterable[Suite]) -> bool:
    """Whether a test of the suites fails, or does not end, with the mutant in this process's copy."""
    copy = Path(os.environ["MUTATE_COPY"])
    file = copy / PACKAGE / mutant.file
    original = file.read_text()
    file.write_text(mutant.source)
    try:
        # 5: no test was selected, which kills nobody.
        return any(
            in_a_process(limit, run_tests, copy, suite) not in (0, 5) for suite, limit in suites if suite
        )
    finally:
        file.write_text(original)


def suites(mutant: Mutant, tests: dict[str, dict[int, list[str]]], seconds: dict[str, float]) -> list[Suite]:
    """Return the tests that may kill a mutant: those that execute its lines, then those that start interpreters."""
    lines = tests.get(mutant.file, {})
    ours = dict.fromkeys(test for line in mutant.lines for test in lines.get(line, []))
    # What runs at import, or in no test of this process, is seen by whatever uses the file.
    chosen = [list(ours) or lines.get(0, []), [f"tests/{name}" for name in ELSEWHERE.get(mutant.file, [])]]
    return [(suite, limit(set(suite), seconds)) for suite in chosen]


def limit(suite: set[str], seconds: dict[str, float]) -> float:
    """Return after how many seconds a suite counts as hanging, as some mutants loop for ever; it has tests or files."""
    return 30 + 5 * sum(time for test, time in seconds.items() if {test, test.partition("::")[0]} & suite)


def take_copy(copies: Any) -> None:
    """Give this worker process a copy of the project of its own."""
    os.environ["MUTATE_COPY"] = copies.get()


def healthy(directory: Path) -> tuple[dict[str, dict[int, list[str]]], dict[str, float]]:
    """Run the fast tests on a copy without a mutant; return which tests execute which line, and their seconds."""

    def measure() -> int:
        watch = Watch(directory)
        watch.coverage.start()
        status = run_tests(
            directory, ["tests", *(f"--ignore=tests/{name}" for name in OUTSIDE)], [watch], cached=True
        )
        watch.coverage.stop()
        (directory / "tests.json").write_text(json.dumps([watch.tests(directory), watch.seconds]))
        return status

    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(measure()))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit("the tests fail without any mutant")
    by_text, seconds = json.loads((directory / "tests.json").read_text())
    if of_one_copy := [test for test in seconds if str(directory) in test]:
        sys.exit(f"not to be found in another copy: {', '.join(of_one_copy)}")
    tests = {file: {int(line): tests for line, tests in lines.items()} for file, lines in by_text.items()}
    return tests, seconds


def survivors(chosen: Sequence[Mutant], at_once: int, reasons: dict[tuple[str, str], str]) -> list[Mutant]:
    """Return the mutants that no test kills, and show each when it is found; write down the others."""
    known = set(KILLED.read_text().split()) if KILLED.exists() else set()
    todo = [mutant for mutant in chosen if mutant.key not in known]
    print(f"{len(chosen)} mutants, {len(chosen) - len(todo)} known to be killed", file=sys.stderr)
    if not todo:
        return []
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as directory, KILLED.open("a") as killed:
        copies = context.Queue()
        first = Path(directory, "0")
        ignored = shutil.ignore_patterns(".*", "__pycache__", "results")
        shutil.copytree(ROOT, first, symlinks=True, ignore=ignored)
        make_venv(first)
        # It leaves the tests' bytecode, too, which is half of the time of many mutants.
        tests, seconds = healthy(first)
        copies.put(str(first))
        for number in range(1, at_once):
            copy = shutil.copytree(first, f"{directory}/{number}", True, shutil.ignore_patterns(".*"))
            copies.put(copy)
            make_venv(Path(copy))
        with concurrent.futures.ProcessPoolExecutor(at_once, context, take_copy, (copies,)) as pool:
            futures = {
                pool.submit(is_killed, mutant, suites(mutant, tests, seconds)): mutant for mutant in todo
            }
            alive = []
            for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
                if future.result():
                    print(futures[future].key, file=killed, flush=True)
                else:
                    alive.append(futures[future])
                    print(f"\r{told(futures[future], reasons)}", file=sys.stderr)
                print(f"\r{number} of {len(todo)}, {len(alive)} survive", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [mutant for mutant in todo if mutant in alive]


def told(mutant: Mutant, reasons: dict[tuple[str, str], str]) -> str:
    """Return how a survivor is shown: where it is, why it may live, and what it changes."""
    why = reasons.get((mutant.file, mutant.change), "NOT LISTED in survivors.toml")
    return f"{mutant.file}: {why}\n{mutant.change}\n"


def options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tenth", action="store_true", help="take a random tenth of the mutants")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="which part")
    parser.add_argument("--files", nargs="+", metavar="FILE", help="mutate only these, like diagnosis/cli.py")
    parser.add_argument("--fresh", action="store_true", help="forget which mutants were killed before")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="processes (default: 2)")
    return parser.parse_args()


def main() -> int:
    """Make the mutants, run the tests on each, print what lives; return the exit status."""
    chosen = options()
    paths = sorted(path for path in (ROOT / PACKAGE).rglob("*.py") if "stand_in" not in path.parts)
    names = [str(path.relative_to(ROOT / PACKAGE)) for path in paths]
    unknown = set(chosen.files or ()) - set(names)
    if unknown:
        sys.exit(f"not a file of the package: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    everyone = [mutant for name in chosen.files or names for mutant in mutants(name)]
    if chosen.tenth:
        print(f"a random tenth, by --seed {chosen.seed}")
        everyone = random.Random(chosen.seed).sample(everyone, -(-len(everyone) // 10))
    KILLED.parent.mkdir(exist_ok=True)
    if chosen.fresh:
        KILLED.unlink(missing_ok=True)
    listed = tomllib.loads((ROOT / "tools/survivors.toml").read_text()).get("survivor", [])
    reasons = {(entry["file"], entry["change"].strip()): entry["reason"] for entry in listed}
    alive = survivors(everyone, chosen.at_once, reasons)
    seen = {(mutant.file, mutant.change) for mutant in alive}
    for text in sorted({told(mutant, reasons) for mutant in alive}):
        print(text)
    gone = reasons.keys() & {(mutant.file, mutant.change) for mutant in everyone} - seen
    gone |= set() if chosen.tenth or chosen.files else reasons.keys() - seen
    for file, change in sorted(gone):
        print(f"{file}: listed, but does not survive\n{change}\n")
    score = 100 * (1 - len(alive) / len(everyone))
    print(f"{len(everyone)} mutants, {len(alive)} survived: score {score:.1f} %, wanted {WANTED} %")
    if chosen.tenth:
        return 0  # A sample swings by chance: it shows where to look.
    return 0 if score >= WANTED and seen <= reasons.keys() and not gone else 1


if __name__ == "__main__":
    sys.exit(main())
