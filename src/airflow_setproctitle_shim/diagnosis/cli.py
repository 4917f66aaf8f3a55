"""The command line: parses, prints what the other modules found, and decides the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from .. import VARIABLE, __version__, is_active
from . import doctor, packages, probe, state
from .finding import SEVERITIES, Answer

# Whether all is well, what is said to programs, and what to people.
Told = tuple[bool, dict[str, Any], list[str]]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = next(filter(COMMANDS.__contains__, arguments), "usage")
    options = Namespace(command=asked, json="--json" in arguments)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # None if closed when Python started
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # Paths may hold anything.
    for number in (signal.SIGTERM, signal.SIGHUP):  # End as by Ctrl-C, which leaves no process behind.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        _parser().parse_args(arguments, options)
        return _tell(options, *COMMANDS[options.command](options))
    except SystemExit as error:
        if error.code != 2:
            raise
        message, status = "", 2  # argparse has told what is wrong
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except OSError as error:
        message, status = str(error), 1
    except Exception as error:  # noqa: BLE001  # a traceback helps no user
        message, status = f"{type(error).__name__}: {error}. This is a bug, please report it", 1
    _print(f"airflow-setproctitle-shim: {message}\n" if message else "", sys.stderr)
    if options.json:
        with contextlib.suppress(OSError):
            _tell(options, False, {"error": message or "wrong usage"}, [])
    return status


def _tell(options: Namespace, ok: bool, data: dict[str, Any], lines: list[str]) -> int:
    """Print the data as JSON (see docs/json-schema/) or the lines for people; return the exit status."""
    if options.json:
        data = {"schema": f"{options.command}/2", "ok": ok, **data}
        lines = [json.dumps(data, indent=2, default=str)]
    else:  # What would drive the terminal is not printed: it may come from anybody's files.
        lines = ["".join(it if it.isprintable() else "?" for it in line) for line in lines]
    _print("\n".join([*lines, ""]), sys.stdout)
    return int(not ok)


def _print(text: str, stream: TextIO) -> None:
    """Print text, and what is left of others', now. A reader that left (`... | head`) changes no exit status,
    nor does a broken stderr."""
    try:
        print(text, end="", file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Nor is what is left written at exit.
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise


def _parser() -> ArgumentParser:
    parser = ArgumentParser("airflow-setproctitle-shim", allow_abbrev=False)
    parser.description = f"Keeps setproctitle from crashing forks on macOS, unless {VARIABLE}=off."
    parser.epilog = "Exit status: 0 fine, 1 something needs attention, 2 wrong usage."
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = {}
    for name, function in COMMANDS.items():
        text = function.__doc__
        add[name] = commands.add_parser(name, help=text, description=text, allow_abbrev=False).add_argument
        if name != "sitecustomize":
            add[name]("--json", action="store_true", help="print JSON for programs")
    add["probe"]("-n", "--children", type=_number, default=20, metavar="N", help="how many (20)")
    add["probe"]("--timeout", type=_number, default=30, metavar="S", help="until a child counts as hung (30)")
    add["probe"]("--threads", action="store_const", const=4, default=0, help="with four other threads")
    add["probe"]("--titles", action="store_true", help="read the titles with ps (needs the extra `titles`)")
    add["probe"]("--simulate", action="store_true", help="use the stand-in for setproctitle, as off macOS")
    paths: dict[str, Any] = {"action": "append", "type": _path, "default": [], "metavar": "PATH"}
    add["doctor"]("--logs", **paths, help="where logs lie (default: in AIRFLOW_HOME); repeatable")
    add["doctor"]("--crash-reports", **paths, help="where macOS's crash reports lie; repeatable")
    add["doctor"]("--only", action="append", choices=doctor.CHECKS, metavar="NAME", help="one; repeatable")
    add["doctor"]("--list", action="store_true", help="list the checks and stop")
    return parser


def _number(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 < int(text) <= 86_400:
            return int(text)
    raise ArgumentTypeError(f"{text!r} is not a whole number above 0, 86400 at most")


def _path(text: str) -> Path:
    if os.path.exists(text):
        return Path(text)
    raise ArgumentTypeError(f"there is no {text!r}")


def _table(rows: dict[str, str]) -> list[str]:
    return [f"  {name:13} {text}" for name, text in rows.items()]


def _findings(answers: dict[str, Answer]) -> tuple[bool, list[str], list[dict[str, Any]]]:
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


def _status(_: Namespace) -> Told:
    """Tell whether the shim is on here, and why."""
    here, startup = packages.installed(), state.startup()
    used_by = packages.used_by(here)
    ok, lines, found = _findings({"startup": startup, "used-by": used_by})
    facts, who = {**state.facts(), "used by": used_by.looked_at}, packages.users(here)
    data = {"on": is_active(), "why": startup.looked_at, "findings": found, "used_by": who, "facts": facts}
    return ok, data, [startup.looked_at, *lines, "", *_table(facts)]


def _probe(options: Namespace) -> Told:
    """Fork children that set a title, without and with the shim."""
    simulate = options.simulate or sys.platform != "darwin"
    off, on = probe.probe(options.children, options.timeout, options.threads, options.titles, simulate)
    ok, verdict = probe.verdict(off, on)
    lines = ["Simulated: a stand-in dies after fork as setproctitle does on macOS."] if simulate else []
    lines += [f"  without the shim: {off}", f"  with the shim:    {on}"]
    lines += [f"    {line}" for line in on.listing[:5]]
    if not on.startup_file:
        lines.append(f"The startup file itself was not tested: run {state.COMMAND} status")
    here = packages.installed()
    lines += [finding.evidence for finding in packages.used_by(here).findings]
    runs = {"without": asdict(off), "with": asdict(on)}
    data = {"simulated": simulate, "verdict": verdict, **runs, "used_by": packages.users(here)}
    return ok, data, [*lines, verdict]


def _doctor(options: Namespace) -> Told:
    """Look for what else is wrong, and change nothing."""
    if options.list:
        questions = {name: question for name, (question, _) in doctor.CHECKS.items()}
        return True, {"checks": list(questions), "questions": questions}, _table(questions)
    names = list(dict.fromkeys(options.only or doctor.CHECKS))
    answers = doctor.diagnose(doctor.Facts(options.logs, options.crash_reports), names)
    ok, lines, found = _findings(answers)
    looked_at = {name: answer.looked_at for name, answer in answers.items()}
    read = dict.fromkeys(file for answer in answers.values() for file in answer.read)
    data = {"checks": names, "looked_at": looked_at, "read": [*map(asdict, read)], "findings": found}
    head = ["Nothing needs attention in what was looked at."] if ok else []
    return ok, data, [*head, *lines, "looked at:", *_table(looked_at)]


def _sitecustomize(_: Namespace) -> Told:
    """Print a sitecustomize.py that switches the shim on."""
    # Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
    file = Path(__file__).parents[1] / "as_site_customize.py"
    return True, {}, file.read_text("utf-8").splitlines()


COMMANDS = {"status": _status, "probe": _probe, "doctor": _doctor, "sitecustomize": _sitecustomize}
