"""The command line: prints what environment.py, probe.py and doctor.py found. Exit status 0: fine,
1: something needs attention, 2: wrong usage."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import VARIABLE, __version__
from . import doctor, environment, probe

# Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
TEMPLATE = Path(__file__).parent.parent / "as_sitecustomize.py"
PACKAGE = __name__.partition(".")[0]
FLAWS = (  # of a startup file: the fact, what to say of it, and its value when all is well
    ("used", "not the one this Python reads", True),
    ("hidden", "hidden", False),
    ("owned", "not in RECORD", True),
    ("intact", "not as installed", True),
    ("in_site_directory", "not where site looks", True),
)
COLOURS = {"error": "31", "warning": "33", "note": "36", "on": "32", "off": "33"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Paths may hold anything.
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `... | head`: nobody reads on. What is left must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except (probe.ProbeError, OSError, subprocess.SubprocessError) as error:
        message, status = str(error), 1
    except Exception as error:  # noqa: BLE001  # a traceback helps no user
        message, status = f"{type(error).__name__}: {error}. This is a bug, please report it", 1
    _progress()
    print(f"airflow-setproctitle-shim: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-setproctitle-shim",
        description="Keeps setproctitle from crashing forked processes on macOS. "
        f"It needs no command to work; {VARIABLE}=off switches it off.",
        epilog="Exit status: 0 fine, 1 something needs attention, 2 wrong usage.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Callable[..., object]:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        return added.add_argument

    add = command("status", _status, "tell whether the shim is on here, and why")
    add("--python", metavar="PATH", help="ask about another Python interpreter")
    add("--json", action="store_true", help="print JSON for programs")

    add = command("probe", _probe, "fork children that set a title, without and with the shim")
    whole, number = functools.partial(_number, int), functools.partial(_number, float)
    patience = "seconds before a child counts as hung (default: 30)"
    add("-n", "--children", type=whole, default=20, metavar="N", help="how many (default: 20)")
    add("--timeout", type=number, default=30.0, metavar="S", help=patience)
    add("--method", choices=probe.METHODS, default="fork", help="how children start (default: fork)")
    add("--threads", action="store_const", const=4, default=0, help="fork with four other threads running")
    add("--titles", action="store_true", help="read the titles back with ps (needs the extra `titles`)")
    add("--simulate", action="store_true", help="use the stand-in for setproctitle, as off macOS")
    add("--json", action="store_true", help="print JSON for programs")

    add = command("doctor", _doctor, "look for what else is wrong, and change nothing")
    add("--logs", type=_existing, metavar="DIR", help="where logs lie (default: in AIRFLOW_HOME)")
    reports = Path("~/Library/Logs/DiagnosticReports").expanduser()
    text = "where macOS crash reports lie (default: in ~/Library/Logs)"
    add("--crash-reports", type=_existing, default=reports, metavar="DIR", help=text)
    add("--only", action="append", choices=doctor.CHECKS, metavar="NAME", help="this check only; repeatable")
    add("--list", action="store_true", help="list the checks and stop")
    add("--json", action="store_true", help="print JSON for programs")

    add = command("sitecustomize", _sitecustomize, "print a sitecustomize.py that switches the shim on")
    add("--write", type=Path, metavar="DIR", help="write it to DIR/sitecustomize.py instead")
    add("--force", action="store_true", help="overwrite a file that is there")
    return parser


def _number(kind: Callable[[str], float], text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < kind(text) <= 86_400:
            return kind(text)
    name = "whole number" if kind is int else "number"
    raise argparse.ArgumentTypeError(f"{text!r} is not a {name} above 0, 86400 at most")


def _existing(text: str) -> Path:
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no {text!r}")
    return Path(text)


def _progress(text: str = "") -> None:
    """Show on a terminal what is being done, in place of what was shown before."""
    if sys.stderr.isatty():
        text = _printable(text)[: shutil.get_terminal_size().columns - 1]
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _tell(options: argparse.Namespace, ok: bool, data: dict[str, object], lines: Iterable[str]) -> int:
    """Print the data as JSON (see docs/json-schema/) or the lines for people; return the exit status."""
    _progress()
    if options.json:
        print(json.dumps({"schema": f"{options.command}/1", "ok": ok, **data}, indent=2, default=str))
        return int(not ok)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in map(_printable, lines):
        label, colon, rest = line.partition(":")
        print(f"\033[{COLOURS[label]}m{label}\033[m{colon}{rest}" if colour and label in COLOURS else line)
    return int(not ok)


def _printable(text: str) -> str:
    """Return the text without what would drive the terminal: it may come from anybody's files."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _sentence(label: str, text: str) -> list[str]:
    """Return lines that fit the terminal."""
    width = max(40, min(100, shutil.get_terminal_size().columns))
    text = f"{label}: {text}"
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")


def _some(lines: Sequence[str], number: int) -> list[str]:
    """Return the first lines, and how many more there are."""
    more = len(lines) - number
    return [*lines[:number], *([f"... and {more} more, see --json"] if more > 0 else [])]


def _short(text: str) -> str:
    """Return the text with the paths below site-packages relative to it."""
    for directory in environment.site_directories():
        text = text.replace(f"{directory}{os.sep}", "")
    return text


def _status(options: argparse.Namespace) -> int:
    if options.python:
        return _status_of(options.python, ["--json"] if options.json else [])
    on, why, finding = doctor.status()
    facts: dict[str, Any] = environment.facts()
    value, version = facts["variable"]["value"], facts["setproctitle"]["version"]
    before = facts["finders"][: facts["finders"].index(PACKAGE)] if on else []
    danger = "crashes after fork on macOS" if doctor.unsafe_on_macos(version or "") else "safe on macOS"
    state = f"on sys.meta_path, before it: {', '.join(before) or 'none'}" if on else "not on sys.meta_path"
    table = [
        ("platform", facts["platform"]),
        ("variable", f"{VARIABLE} is {'not set' if value is None else repr(value)}"),
        ("python", f"{facts['python']['version']}  {facts['python']['executable']}"),
        *(("startup file", _startup_file(file)) for file in facts["startup_files"]),
        ("finder", state),
        ("setproctitle", f"{version} ({danger})" if version else "not installed"),
        ("titles", _titles(**facts["titles"])),
        ("import runs", facts["setproctitle"]["origin"] or "nothing: setproctitle cannot be imported"),
    ]
    lines = _sentence("on" if on else "off", why)
    if finding and finding.evidence != why:
        lines += _sentence(finding.severity, finding.evidence)
    if finding:
        lines.append(f"  -> {finding.remedy}")
    lines += ["", *(f"  {name:13} {text}" for name, text in table)]
    ok, remedy = (finding.severity == "note", finding.remedy) if finding else (True, None)
    return _tell(options, ok, {"on": on, "why": why, "remedy": remedy, **facts}, lines)


def _titles(shown: bool, processtitle: str | None) -> str:
    """Return what becomes of titles while the shim is on."""
    if not shown:
        return f"remembered, not shown; {VARIABLE}=titles shows them"
    if processtitle is None:
        return "not shown: needs pip install 'airflow-setproctitle-shim[titles]'"
    return f"shown in ps by processtitle {processtitle}"


def _startup_file(file: dict[str, Any]) -> str:
    wrong = [text for key, text, well in FLAWS if file[key] is not well]
    state = ", ".join(wrong) or "in order" if file["exists"] else "missing"
    return f"{_short(str(file['path']))}: {state}"


def _status_of(python: str, arguments: list[str]) -> int:
    """Let another interpreter tell its status; the environment variables are those of this one."""
    command = [python, "-m", PACKAGE, "status", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    if done.returncode and f"No module named {PACKAGE}" in done.stderr:
        install = f"{python} -m pip install {environment.DISTRIBUTION}"
        print(f"the shim is not installed for {python}\n  -> {install}", file=sys.stderr)
    else:
        sys.stderr.write(done.stderr)
    return done.returncode


def _probe(options: argparse.Namespace) -> int:
    simulate = options.simulate or sys.platform != "darwin"
    how = (options.children, options.timeout, options.method, options.threads, options.titles)
    off, on = probe.probe(probe.Settings(*how, simulate), _progress)
    lines = ["Simulated: a stand-in dies after fork as setproctitle does on macOS."] if simulate else []
    for label, run in (("without the shim:", off), ("with the shim:", on)):
        ends = ", ".join(f"{count} {end}" for end, count in sorted(run.ends.items()) if end != "ok")
        lines.append(f"  {label:18}{run.lost} of {run.children} children lost{f' ({ends})' if ends else ''}")
        if options.titles:
            shown = _some(run.listing, 5) or ["ps shows none of them: they are dead"]
            lines += [f"    {line}" for line in shown]
    for run in (off, on):
        if run.frames:
            lines += ["where it died:", *(f"  {_short(frame)}" for frame in run.frames[:3])]
    if not on.served:
        lines.append(f"The shim is not on here. See why: {doctor.COMMAND} status")
    elif on.lost:
        lines.append("The shim did NOT save every child.")
    elif off.lost:
        lines.append("The shim saved every child.")
    else:
        lines.append("No child died, with or without the shim: this run proves nothing.")
    runs = {"without": dataclasses.asdict(off), "with": dataclasses.asdict(on)}
    return _tell(options, on.served and not on.lost, {"simulated": simulate, **runs}, lines)


def _doctor(options: argparse.Namespace) -> int:
    if options.list:
        for name, check in doctor.CHECKS.items():
            print(f"  {name:13} {check.__doc__}")
        return 0
    logs = [options.logs] if options.logs else doctor.default_logs()
    names = options.only or list(doctor.CHECKS)
    findings = doctor.diagnose(doctor.Scope(logs, options.crash_reports, _progress), names)
    ok = all(finding.severity == "note" for finding in findings)
    lines = [f"Nothing needs attention ({len(names)} checks made)."] if ok else []
    for finding in findings:
        lines += [*_sentence(finding.severity, finding.evidence), f"  -> {finding.remedy}"]
        lines += [f"     {_short(line)}" for line in (*_some(finding.details, 3), *finding.sources)]
    data = {"checks": names, "findings": [dataclasses.asdict(finding) for finding in findings]}
    return _tell(options, ok, data, lines)


def _sitecustomize(options: argparse.Namespace) -> int:
    text = TEMPLATE.read_text("utf-8")
    if options.write is None:
        print(text, end="")
        return 0
    path = options.write / "sitecustomize.py"
    if path.exists() and not options.force:
        raise FileExistsError(f"{path} exists; --force overwrites it")
    path.write_text(text, "utf-8")
    print(f"wrote {path}")
    return 0
