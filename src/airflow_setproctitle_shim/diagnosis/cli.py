"""The command line: parses, prints what the other modules found, and decides the exit status. 0: fine, 1: something
needs attention, 2: wrong usage."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from .. import VARIABLE, __version__, is_active
from . import doctor, packages, probe, state
from .finding import SEVERITIES, Answer

# Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
TEMPLATE = Path(__file__).parent.parent / "as_site_customize.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = Namespace(command=next(filter(COMMANDS.__contains__, arguments), "usage"))
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # None if closed when Python started
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Paths may hold anything.
    for number in (signal.SIGTERM, signal.SIGHUP):  # End as by Ctrl-C, which leaves no process behind.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        _parser().parse_args(arguments, options)
        return int(options.run(options))
    except SystemExit as error:
        if error.code != 2:
            raise
        message, status = "", 2  # argparse has told what is wrong
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except (probe.ProbeError, OSError) as error:
        message, status = str(error), 1
    except Exception as error:  # noqa: BLE001  # a traceback helps no user
        message, status = f"{type(error).__name__}: {error}. This is a bug, please report it", 1
    with contextlib.suppress(OSError):
        _print(f"airflow-setproctitle-shim: {message}\n" if message else "", sys.stderr)
    if "--json" in arguments:
        with contextlib.suppress(OSError):
            _print(_json(options.command, {"ok": False, "error": message or "wrong usage"}), sys.stdout)
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
    add: dict[str, Callable[..., object]] = {}
    for name, (run, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        add[name] = command.add_argument
        if name != "sitecustomize":
            add[name]("--json", action="store_true", help="print JSON for programs")
    patience = "seconds before a child counts as hung (default: 30)"
    add["probe"]("-n", "--children", type=_whole, default=20, metavar="N", help="how many (default: 20)")
    add["probe"]("--timeout", type=_number, default=30.0, metavar="S", help=patience)
    add["probe"]("--method", choices=probe.METHODS, default="fork", help="how children start (default: fork)")
    add["probe"]("--threads", action="store_const", const=4, default=0, help="with four other threads")
    add["probe"]("--titles", action="store_true", help="read the titles with ps (needs the extra `titles`)")
    add["probe"]("--simulate", action="store_true", help="use the stand-in for setproctitle, as off macOS")
    add["doctor"]("--logs", type=_path, metavar="PATH", help="where logs lie (default: in AIRFLOW_HOME)")
    add["doctor"]("--crash-reports", type=_path, metavar="PATH", help="where macOS's crash reports lie")
    add["doctor"]("--only", action="append", choices=doctor.CHECKS, metavar="NAME", help="one; repeatable")
    add["doctor"]("--list", action="store_true", help="list the checks and stop")
    return parser


def _number(text: str, kind: Callable[[str], float] = float) -> float:
    with contextlib.suppress(ValueError):
        if 0 < kind(text) <= 86_400:
            return kind(text)
    raise ArgumentTypeError(f"{text!r} is not a {'whole ' * (kind is int)}number above 0, 86400 at most")


def _whole(text: str) -> float:
    return _number(text, int)


def _path(text: str) -> Path:
    if os.path.exists(text):
        return Path(text)
    raise ArgumentTypeError(f"there is no {text!r}")


def _json(command: str, data: Mapping[str, object]) -> str:
    return json.dumps({"schema": f"{command}/2", **data}, indent=2, default=str) + "\n"


def _tell(options: Namespace, ok: bool, data: Mapping[str, object], lines: Iterable[str]) -> int:
    """Print the data as JSON (see docs/json-schema/) or the lines for people; return the exit status."""
    # What would drive the terminal is not printed: it may come from anybody's files.
    text = ("".join(character if character.isprintable() else "?" for character in line) for line in lines)
    _print(_json(options.command, {"ok": ok, **data}) if options.json else "\n".join([*text, ""]), sys.stdout)
    return int(not ok)


def _table(rows: Mapping[str, str]) -> list[str]:
    return [f"  {name:13} {text}" for name, text in rows.items()]


def _findings(answers: Mapping[str, Answer]) -> tuple[bool, list[str], list[dict[str, object]]]:
    """Return whether all is well, and the findings for people and for programs, the most severe first."""
    found = [(name, finding) for name, answer in answers.items() for finding in answer.findings]
    found.sort(key=lambda pair: SEVERITIES.index(pair[1].severity))
    lines, data = [], []
    for name, finding in found:
        plain, links = asdict(finding), [f"https://github.com/{source}" for source in finding.sources]
        lines += [f"{finding.severity}: {finding.evidence}", f"  -> {finding.remedy}"]
        more = [f"... and {len(finding.details) - 3} more, see --json"] if len(finding.details) > 3 else []
        lines += [f"     {line}" for line in (*finding.details[:3], *more, *links)]
        data.append({"id": name, **plain.pop("data"), **plain, "sources": links})
    return all(finding.severity == "note" for _, finding in found), lines, data


def _status(options: Namespace) -> int:
    here, (why, wrong) = packages.installed(), state.state()
    startup = Answer(why, [wrong] if wrong else [])
    answers = {"startup": startup, "used-by": packages.used_by(here), "removed": packages.removed(here)}
    ok, lines, found = _findings(answers)
    facts = {**state.facts(), "used by": answers["used-by"].looked_at}
    data = {"on": is_active(), "why": why, "findings": found, "used_by": packages.users(here), "facts": facts}
    return _tell(options, ok, data, [f"{'on' if is_active() else 'off'}: {why}", *lines, "", *_table(facts)])


def _probe(options: Namespace) -> int:
    simulate = options.simulate or sys.platform != "darwin"
    how = (options.children, options.timeout, options.method, options.threads, options.titles)
    off, on = probe.probe(*how, simulate)
    lines = ["Simulated: a stand-in dies after fork as setproctitle does on macOS."] if simulate else []
    for label, run in (("without the shim:", off), ("with the shim:", on)):
        ends = ", ".join(f"{count} {end}" for end, count in sorted(run.ends.items()) if end != "ok")
        lines.append(f"  {label:18}{run.lost} of {run.children} children lost{f' ({ends})' if ends else ''}")
        lines += [f"    {line}" for line in run.listing[:5]]
    if not on.startup_file:
        lines.append(f"The startup file itself was not tested: run {state.COMMAND} status")
    ok, verdict = probe.verdict(off, on)
    data = {"simulated": simulate, "verdict": verdict, "without": asdict(off), "with": asdict(on)}
    return _tell(options, ok, data, [*lines, verdict])


def _doctor(options: Namespace) -> int:
    if options.list:
        questions = {name: question for name, (question, _) in doctor.CHECKS.items()}
        return _tell(options, True, {"checks": list(questions), "questions": questions}, _table(questions))
    names = list(dict.fromkeys(options.only or doctor.CHECKS))
    answers = doctor.diagnose(doctor.Facts(options.logs, options.crash_reports), names)
    ok, lines, found = _findings(answers)
    looked_at = {name: answer.looked_at for name, answer in answers.items()}
    read = dict.fromkeys(file for answer in answers.values() for file in answer.read)
    data = {"checks": names, "looked_at": looked_at, "read": [*map(asdict, read)], "findings": found}
    head = ["Nothing needs attention in what was looked at."] if ok else []
    return _tell(options, ok, data, [*head, *lines, "looked at:", *_table(looked_at)])


def _sitecustomize(_: Namespace) -> int:
    _print(TEMPLATE.read_text("utf-8"), sys.stdout)
    return 0


COMMANDS: dict[str, tuple[Callable[[Namespace], int], str]] = {
    "status": (_status, "Tell whether the shim is on here, and why."),
    "probe": (_probe, "Fork children that set a title, without and with the shim."),
    "doctor": (_doctor, "Look for what else is wrong, and change nothing."),
    "sitecustomize": (_sitecustomize, "Print a sitecustomize.py that switches the shim on."),
}
