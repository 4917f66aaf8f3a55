"""Lists which functions of Apple's frameworks the macOS wheels of setproctitle and processtitle call.

    python tests/support/macos_code/table.py                            every release, into docs/measured.json
    python tests/support/macos_code/table.py setproctitle==1.3.8 ...    these releases; -v names each call

Needs the dependency group `macos-code`, and the package index for wheels that are not in the cache. Exit
status 1 if a wheel could not be run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import measured
import pages

from support.macos_code import wheels
from support.macos_code.emulator import Emulator, NotModelled
from support.macos_code.image import MACHINES, NotRun, read

FIRST = {"setproctitle": "1.2.3", "processtitle": "1.3"}  # the first releases looked at
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
HEAD = ("release", "wheels run", "at import", "first title", "each later title")


@dataclass
class Row:
    """What the code of a release calls, and for which wheels that holds (Python and machine)."""

    release: str
    calls: tuple[str, ...]
    wheels: list[tuple[str, str]]

    def cells(self) -> list[str]:
        machines = {python: [m for p, m in self.wheels if p == python] for python, _ in self.wheels}
        if any(found != [*MACHINES] for found in machines.values()):
            wheels = ", ".join(map(" ".join, self.wheels))
        elif len(machines) > 2 and " ".join(machines) in " ".join(PYTHONS):
            wheels = f"{min(machines, key=PYTHONS.index)} to {max(machines, key=PYTHONS.index)}, both machines"
        else:
            wheels = f"{', '.join(machines)}, both machines"
        return [self.release, wheels, *self.calls]


def described(calls: list[str], full: bool) -> str:
    """Apple's functions called: how many, and what of LaunchServices; or each by name."""
    if full or not calls:
        return " ".join(calls) or "none"
    ends = {"CheckIn": "check-in", "InformationItem": "set"}
    services = [ends[end] for call in calls for end in ends if call.endswith(end)]
    return f"{len(calls)} ({', '.join(services) or 'CoreFoundation only'})"


def run(
    wheel: Path, machine: str, fork_safe_only: bool | None, full: bool = False
) -> tuple[str, ...]:
    """Import the wheel's module, prepare it where `fork_safe_only` is not None, and set two titles.

    Returns what each step calls. Raises NotRun and NotModelled.
    """
    emulator = Emulator(read(wheel, machine))
    module = emulator.module()
    steps = [described(emulator.apple_calls(), full)]
    if fork_safe_only is not None:
        module.prepare(fork_safe_only=fork_safe_only)
        steps[0] += f"; prepare(): {described(emulator.apple_calls(), full)}"
    set_title = module.set_to if fork_safe_only is not None else module.setproctitle
    for title in ("first title", "second title"):
        set_title(title)
        if emulator.title() != title:
            raise NotModelled(
                f"{wheel.name}: ps would show {emulator.title()!r} instead of {title!r}"
            )
        steps.append(described(emulator.apple_calls(), full))
    return tuple(steps)


def settings(name: str) -> dict[str, bool | None]:
    """The ways to run a package: what stands behind its release in the table, and fork_safe_only."""
    if "processtitle" in name:
        return {f", fork_safe_only={safe}": safe for safe in (True, False)}
    return {"": None}


def rows_of(requirement: str, full: bool = False) -> list[Row]:
    """Run every macOS wheel of a release like "setproctitle==1.3.8". Raises wheels.Unreachable."""
    rows: list[Row] = []
    for addition, safe in settings(requirement).items():
        found: dict[tuple[str, ...], Row] = {}
        for python in PYTHONS:
            for machine in MACHINES:
                try:
                    calls = run(wheels.fetch(requirement, python, machine), machine, safe, full)
                except wheels.NoWheel:
                    continue
                except (NotRun, NotModelled) as error:
                    calls = (f"not run: {error}", "not run", "not run")
                row = Row(requirement.replace("==", " ") + addition, calls, [])
                found.setdefault(calls, row).wheels.append((python, machine))
        rows.extend(found.values())
    return rows


def everything() -> list[Row]:
    """Run every macOS wheel of every release from FIRST on."""
    rows = []
    for name, first in FIRST.items():
        releases = wheels.releases(name)
        for release in releases[releases.index(first) :]:
            rows.extend(rows_of(f"{name}=={release}"))
    return rows


def printed(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    return pages.table(HEAD, [row.cells() for row in rows])


def published() -> dict[str, tuple[str, ...]]:
    """What each release calls, as docs/measured.json and so docs/proof.md have it."""
    release, _, *calls = HEAD
    return {row[release]: tuple(row[call] for call in calls) for row in measured.read("macos")}


def main(arguments: list[str]) -> int:
    full = "-v" in arguments
    what = [argument for argument in arguments if argument != "-v"]
    if unknown := [
        one for one in what if not re.fullmatch(r"(setproctitle|processtitle)==[\d.]+", one)
    ]:
        print(f"not a release like setproctitle==1.3.8: {', '.join(unknown)}", file=sys.stderr)
        return 2
    try:
        if not what:
            rows = everything()
            measured.write("macos", [dict(zip(HEAD, row.cells())) for row in rows])
        else:
            rows = [row for release in what for row in rows_of(release, full)]
    except AssertionError as error:
        print(f"not run: {error}", file=sys.stderr)
        return 1
    print(printed(rows))
    return int(any(row.calls[0].startswith("not run") for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
