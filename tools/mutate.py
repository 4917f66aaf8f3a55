"""Mutation testing of what runs in other people's interpreters. Takes a while, so it is run on demand.

    pip install '.[test]' mutmut==3.8.1 && python tools/mutate.py        Python 3.11 or later

Prints each mutant that the tests let live, and the score. Exit status 1: the score is below 95 %, or the
survivors are not those of survivors.toml, where the reason stands why each may live.

mutmut makes the mutants. Its runner keeps all of them in one module, which changes what tracebacks, pickle
and inspect see, so each is written to a copy of the project here, and the in-process tests are run on it.
"""

from __future__ import annotations

import difflib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tomllib
from mutmut.mutation.file_mutation import create_mutations

ROOT = Path(__file__).parent.parent
PACKAGE = "src/airflow_setproctitle_shim"
# Each file's own tests run first, because most of its mutants end there.
FILES = {
    "__init__.py": ("test_switch.py", "test_finder.py"),
    "replacement.py": ("test_replacement.py",),
    "neutralise.py": ("test_neutralise.py",),
}
TESTS = (*FILES["__init__.py"], *FILES["replacement.py"], *FILES["neutralise.py"], "test_small_print.py")
WANTED = 95.0
AT_ONCE = 2


@dataclass(frozen=True)
class Mutant:
    """A file with one change; `change` is the lines that went and came, as in a diff."""

    file: str
    change: str
    source: str


def mutants(file: str) -> list[Mutant]:
    """Return all mutants of a file of the package that differ from each other."""
    original = (ROOT / PACKAGE / file).read_text()
    module, mutations, _, _ = create_mutations(file, original)
    sources = [str(module.deep_replace(m.original_node, m.mutated_node).code) for m in mutations]
    return [Mutant(file, change(original, source), source) for source in dict.fromkeys(sources)]


def change(original: str, source: str) -> str:
    """Return the lines that differ, without their place, so that it stays the same while others change."""
    lines = difflib.unified_diff(original.splitlines(), source.splitlines(), n=0, lineterm="")
    return "\n".join(
        f"{line[0]} {line[1:].strip()}"
        for line in lines
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    )


def is_killed(mutant: Mutant, copy: Path) -> bool:
    """Whether a test fails, or does not end, with the mutant in the copy of the project."""
    file = copy / PACKAGE / mutant.file
    original = file.read_text()
    file.write_text(mutant.source)
    try:
        return run_tests(copy, mutant.file).returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        file.write_text(original)


def run_tests(copy: Path, file: str) -> subprocess.CompletedProcess[str]:
    """Run the in-process tests on a copy of the project, a file's own tests first."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    return subprocess.run(
        [*command, *(f"tests/{test}" for test in dict.fromkeys((*FILES[file], *TESTS)))],
        cwd=copy,
        # Bytecode of one mutant could be taken for that of the next, written in the same second.
        env={**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def survivors(everyone: list[Mutant]) -> list[Mutant]:
    """Return the mutants that no test kills."""
    with tempfile.TemporaryDirectory() as directory:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(AT_ONCE):
            copy = Path(directory, str(number))
            ignored = shutil.ignore_patterns(".*", "__pycache__", "results")
            shutil.copytree(ROOT, copy, ignore=ignored)
            copies.put(copy)
        healthy = run_tests(copy, "neutralise.py")
        if healthy.returncode:
            sys.exit(f"the tests fail without any mutant:\n{healthy.stdout}")

        def lives(mutant: Mutant) -> bool:
            copy = copies.get()
            try:
                killed = is_killed(mutant, copy)
            finally:
                copies.put(copy)
            print("." if killed else "S", end="", file=sys.stderr, flush=True)
            return not killed

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [mutant for mutant, alive in zip(everyone, pool.map(lives, everyone)) if alive]


def main() -> int:
    """Make all mutants, run the tests on each, print what lives; return the exit status."""
    listed = tomllib.loads((ROOT / "tools/survivors.toml").read_text()).get("survivor", [])
    reasons = {(entry["file"], entry["change"].strip()): entry["reason"] for entry in listed}
    everyone = [mutant for file in FILES for mutant in mutants(file)]
    alive = survivors(everyone)
    for mutant in alive:
        reason = reasons.get((mutant.file, mutant.change), "NOT LISTED in survivors.toml")
        print(f"{mutant.file}: {reason}\n{mutant.change}\n")
    seen = {(mutant.file, mutant.change) for mutant in alive}
    for file, was in reasons.keys() - seen:
        print(f"{file}: listed, but no longer survives\n{was}\n")
    score = 100 * (1 - len(alive) / len(everyone))
    print(f"{len(everyone)} mutants, {len(alive)} survived: score {score:.1f} %, wanted {WANTED} %")
    return 0 if score >= WANTED and seen == reasons.keys() else 1


if __name__ == "__main__":
    sys.exit(main())
