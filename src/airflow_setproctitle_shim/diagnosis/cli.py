"""The command line: parses, prints what the other modules found, and decides the exit status. 0: fine, 1: something
needs attention, 2: wrong usage."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from .. import VARIABLE, __version__, is_active
from . import doctor, packages, probe, state
from .finding import SEVERITIES, Answer

# Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
TEMPLATE = Path(__file__).parent.parent / "as_sitecustomize.py"
COLOURS = {"error": "31", "warning": "33", "note": "36", "on": "32", "off": "33"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = argparse.Namespace(command=next(filter(COMMANDS.__contains__, arguments), "usage"))
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # None if closed when Python started
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Paths may hold anything.
    try:
        _parser().parse_args(arguments, options)
        return int(options.run(options))
    except SystemExit as error:
        if error.code != 2:
            raise
        message, status = "", 2  # argparse has told what is wrong
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except (probe.ProbeError, OSError, subprocess.SubprocessError) as error:
        message, status = str(error), 1
    except Exception as error:  # noqa: BLE001  # a traceback helps no user
        message, status = f"{type(error).__name__}: {error}. This is a bug, please report it", 1
    _progress()
    with contextlib.suppress(OSError):
        _print(f"airflow-setproctitle-shim: {message}\n" if message else "", sys.stderr)
    if "--json" in arguments:
        with contextlib.suppress(OSError):
            _print(_json(options.command, ok=False, error=message or "wrong usage"), sys.stdout)
    return status


def _print(text: str, stream: TextIO) -> None:
    """Print the text now. A reader that left (`... | head`) changes no exit status; other OSErrors are raised."""
    try:
        print(text, end="", file=stream, flush=True)
    except OSError as error:
        # What is left must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-setproctitle-shim",
        description="Keeps setproctitle from crashing forked processes on macOS. "
        f"It needs no command to work; {VARIABLE}=off switches it off.",
        epilog="Exit status: 0 fine, 1 something needs attention, 2 wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    added: dict[str, Callable[..., object]] = {}
    for name, (run, text) in COMMANDS.items():
        description = f"{text[0].upper()}{text[1:]}."
        command = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
        command.set_defaults(run=run)
        if run is not _sitecustomize:
            command.add_argument("--json", action="store_true", help="print JSON for programs")
        added[name] = command.add_argument

    add, whole, number = added["probe"], functools.partial(_number, int), functools.partial(_number, float)
    patience = "seconds before a child counts as hung (default: 30)"
    add("-n", "--children", type=whole, default=20, metavar="N", help="how many (default: 20)")
    add("--timeout", type=number, default=30.0, metavar="S", help=patience)
    add("--method", choices=probe.METHODS, default="fork", help="how children start (default: fork)")
    add("--threads", action="store_const", const=4, default=0, help="fork with four other threads running")
    add("--titles", action="store_true", help="read the titles back with ps (needs the extra `titles`)")
    add("--simulate", action="store_true", help="use the stand-in for setproctitle, as off macOS")

    add, text = added["doctor"], "where macOS crash reports lie (default: in ~/Library/Logs)"
    add("--logs", type=_existing, metavar="PATH", help="where logs lie (default: in AIRFLOW_HOME)")
    add("--crash-reports", type=_existing, metavar="PATH", help=text)
    add("--only", action="append", choices=doctor.CHECKS, metavar="NAME", help="this check only; repeatable")
    add("--list", action="store_true", help="list the checks and stop")
    return parser


def _number(kind: Callable[[str], float], text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < kind(text) <= 86_400:
            return kind(text)
    name = "whole number" if kind is int else "number"
    raise argparse.ArgumentTypeError(f"{text!r} is not a {name} above 0, 86400 at most")


def _existing(text: str) -> Path:
    if os.path.exists(text):
        return Path(text)
    raise argparse.ArgumentTypeError(f"there is no {text!r}")


def _progress(text: str = "") -> None:
    """Show on a terminal what is being done, in place of what was shown before."""
    if sys.stderr.isatty():
        text = _printable(text)[: shutil.get_terminal_size().columns - 1]
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _json(command: str, **data: object) -> str:
    return json.dumps({"schema": f"{command}/2", **data}, indent=2, default=str) + "\n"


def _tell(options: argparse.Namespace, ok: bool, data: Mapping[str, object], lines: Iterable[str]) -> int:
    """Print the data as JSON (see docs/json-schema/) or the lines for people; return the exit status."""
    _progress()
    colour, text = sys.stdout.isatty() and not os.environ.get("NO_COLOR"), ""
    for line in map(_printable, lines):
        label, colon, rest = line.partition(":")
        shown = f"\033[{COLOURS[label]}m{label}\033[m" if colour and label in COLOURS else label
        text += f"{shown}{colon}{rest}\n"
    _print(_json(options.command, ok=ok, **data) if options.json else text, sys.stdout)
    return int(not ok)


def _printable(text: str) -> str:
    """Return the text without what would drive the terminal: it may come from anybody's files."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _sentence(label: str, text: str) -> list[str]:
    """Return lines that fit the terminal."""
    width = max(40, min(100, shutil.get_terminal_size().columns))
    text = f"{label}: {text}"
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")


def _table(rows: Mapping[str, str]) -> list[str]:
    return [f"  {name:13} {state.short(text)}" for name, text in rows.items()]


def _some(lines: Sequence[str], number: int) -> list[str]:
    """Return the first lines, and how many more there are."""
    more = len(lines) - number
    return [*lines[:number], *([f"... and {more} more, see --json"] if more > 0 else [])]


def _findings(
    answers: Mapping[str, Answer], told: str = ""
) -> tuple[bool, list[str], list[dict[str, object]]]:
    """Return whether all is well, and the findings for people and for programs, the most severe first. Evidence
    that was told already is not told again."""
    found = [(name, finding) for name, answer in answers.items() for finding in answer.findings]
    found.sort(key=lambda pair: SEVERITIES.index(pair[1].severity))
    lines, data = [], []
    for name, finding in found:
        links = [f"https://github.com/{source}" for source in finding.sources]
        lines += _sentence(finding.severity, finding.evidence) if finding.evidence != told else []
        lines += [f"  -> {finding.remedy}"]
        lines += [f"     {state.short(line)}" for line in (*_some(finding.details, 3), *links)]
        plain = asdict(finding)
        data.append({"id": name, **plain, "sources": links, **plain.pop("data")})
    return all(finding.severity == "note" for _, finding in found), lines, data


def _status(options: argparse.Namespace) -> int:
    here, (why, wrong) = packages.installed(), state.state()
    answers = {
        "startup": Answer(why, [wrong] if wrong else []),
        "used-by": packages.used_by(here),
        "removed": packages.removed(here),
    }
    ok, lines, found = _findings(answers, told=why)
    facts = {**state.facts(), "used by": packages.told(here)}
    data = {"on": is_active(), "why": why, "findings": found, "used_by": packages.users(here), "facts": facts}
    return _tell(
        options, ok, data, [*_sentence("on" if is_active() else "off", why), *lines, "", *_table(facts)]
    )


def _probe(options: argparse.Namespace) -> int:
    simulate = options.simulate or sys.platform != "darwin"
    how = (options.children, options.timeout, options.method, options.threads, options.titles)
    settings = probe.Settings(*how, simulate)
    off, on = probe.probe(settings, _progress)
    lines = ["Simulated: a stand-in dies after fork as setproctitle does on macOS."] if simulate else []
    for label, run in (("without the shim:", off), ("with the shim:", on)):
        ends = ", ".join(f"{count} {end}" for end, count in sorted(run.ends.items()) if end != "ok")
        lines.append(f"  {label:18}{run.lost} of {run.children} children lost{f' ({ends})' if ends else ''}")
        if options.titles:
            shown = _some(run.listing, 5) or ["ps shows none of them: they are dead"]
            lines += [f"    {line}" for line in shown]
    for run in (off, on):
        lines += ["where it died:"] * bool(run.frames) + [
            f"  {state.short(frame)}" for frame in run.frames[:3]
        ]
    if simulate and not settings.startup_file:
        lines.append(f"The startup file itself was not tested: run {state.COMMAND} status")
    ok, verdict = probe.verdict(off, on)
    data = {"simulated": simulate, "startup_file": settings.startup_file, "verdict": verdict}
    return _tell(options, ok, {**data, "without": asdict(off), "with": asdict(on)}, [*lines, verdict])


def _doctor(options: argparse.Namespace) -> int:
    names = list(dict.fromkeys(options.only or doctor.CHECKS))
    if options.list:
        questions = {name: question for name, (question, _) in doctor.CHECKS.items()}
        return _tell(options, True, {"checks": list(questions), "questions": questions}, _table(questions))
    answers = doctor.diagnose(doctor.Facts(options.logs, options.crash_reports, _progress), names)
    ok, lines, found = _findings(answers)
    looked_at = {name: answer.looked_at for name, answer in answers.items()}
    read = dict.fromkeys(file for answer in answers.values() for file in answer.read)
    data = {"checks": names, "looked_at": looked_at, "read": [*map(asdict, read)], "findings": found}
    head = ["Nothing needs attention in what was looked at."] if ok else []
    return _tell(options, ok, data, [*head, *lines, "looked at:", *_table(looked_at)])


def _sitecustomize(_: argparse.Namespace) -> int:
    _print(TEMPLATE.read_text("utf-8"), sys.stdout)
    return 0


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "status": (_status, "tell whether the shim is on here, and why"),
    "probe": (_probe, "fork children that set a title, without and with the shim"),
    "doctor": (_doctor, "look for what else is wrong, and change nothing"),
    "sitecustomize": (_sitecustomize, "print a sitecustomize.py that switches the shim on"),
}
