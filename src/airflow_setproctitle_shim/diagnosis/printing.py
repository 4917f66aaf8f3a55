"""What people read, made of what programs read: lines that fit 80 columns where paths allow it."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # No command needs what the others import.
    from .doctor import Death, Diagnosis
    from .probe import Probe, Run
    from .status import Status

WIDTH = 79


def of_status(status: Status) -> list[str]:
    """Return what `status` prints."""
    lines = [*_wrapped(status.says), *_rows("fix", list(status.fixes))]
    for label, text in status.rows():
        row = f"  {label:8}  {text}" if label else f"  {text}"
        # The paths in the other rows are not broken.
        lines += _wrapped(row, 12 if label else 4) if label in ("", "protects") else [row]
    return lines


def of_probe(probe: Probe) -> list[str]:
    """Return what `probe` prints."""
    simulated = f" (SIMULATED: {probe.why_simulated})" if probe.why_simulated else ""
    workers = f"{probe.with_shim.children} workers forked, twice"
    if probe.without_shim.hung or probe.with_shim.hung:
        workers = f"Up to {workers}"
    lines = [f"{workers}{simulated}"]
    lines.append(_of_run("without the shim", probe.without_shim))
    lines.append(_of_run("with the shim", probe.with_shim))
    lines += [f"  ps  {line}" for line in probe.with_shim.ps[:5]]
    lines += _wrapped(probe.says) + _rows("fix", list(probe.fixes))
    return lines + _wrapped(probe.note)


def _of_run(name: str, run: Run) -> str:
    """Return a line: how many were killed, and how those ended that did not end well."""
    ends = [f"{count} {end}" for end, count in run.ends.items() if end != "ok"]
    if left := run.children - sum(run.ends.values()):
        ends.append(f"{left} not forked")
    line = f"  {name:16} {run.killed:3} killed"
    return f"{line} ({', '.join(ends)})" if ends else line


def of_report(report: Diagnosis) -> list[str]:
    """Return what `doctor` prints."""
    lines = [*_wrapped(report.shim.says), *_rows("fix", list(report.shim.fixes)), ""]
    if not report.deaths:
        lines += [*_wrapped(report.says), *_rows("try", report.advice), ""]
    for death in [*report.deaths, *report.notes]:
        lines += [*_of_death(death, report.shim.installed), ""]
    looked_at = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in report.looked_at.items())
    lines += _wrapped(f"looked at   {looked_at or 'nothing'}", 12)
    lines += [f"no such     {path}" for path in report.missing]
    paths = dict[str, list[str]]()
    for file in report.not_read:
        paths.setdefault(file["why"], []).append(file["path"])
    for why, files in paths.items():
        lines += _wrapped(f"not read    {', '.join(files)}: {why}", 12)
    return [line.replace(f" {os.path.expanduser('~')}{os.sep}", f" ~{os.sep}") for line in lines]


def _of_death(death: Death, installed: str) -> list[str]:
    last = death.last
    lines = _wrapped(f"{death.count} sign{'s' * (death.count > 1)} of {death.cause}: {death.says}")
    lines += _rows(death.label, death.advice)
    if death.source:
        lines.append(f"  see   {death.source}")
    lines.append("  ".join(filter(None, ["  last", last.time, last.place])))
    if death.prevented is not False:  # Then it matters which came first.
        lines.append(f"  shim  installed {installed}")
    return [*lines, *_quoted("line", last.quote), *_quoted("frame", death.frame)]


def _quoted(label: str, text: str) -> list[str]:
    """Return what was read, behind a bar."""
    lines = textwrap.wrap(text, WIDTH - 10, max_lines=3, placeholder=" ...")
    return [f"  {'' if number else label:6}| {line}" for number, line in enumerate(lines)]


def _wrapped(text: str, indent: int = 0) -> list[str]:
    """Return a sentence's lines; `indent`: blanks before the second and later ones."""
    wrapper = textwrap.TextWrapper(
        WIDTH, "", " " * indent, break_on_hyphens=False, break_long_words=False
    )
    return wrapper.wrap(text)


def _rows(label: str, pieces: list[str]) -> list[str]:
    """Return pieces behind a label: sentences are wrapped, lines to copy are not. A second line of
    a piece is a word about it."""
    lines = []
    for number, piece in enumerate(filter(None, pieces)):
        line, _, word = piece.partition("\n")
        row = f"  {'' if number else label:6}{line}"
        lines += _wrapped(row, 8) if line.endswith(".") else [row]
        lines += _wrapped(f"          {word}", 10) if word else []
    return lines
