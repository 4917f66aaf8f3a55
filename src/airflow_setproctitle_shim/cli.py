"""The command line: prints what environment.py, probe.py and doctor.py found. Exit status 0: fine,
1: something needs attention, 2: wrong usage."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import VARIABLE, __version__, doctor, environment, probe

# Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
TEMPLATE = Path(__file__).parent / "startup_template.py"
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
    Progress.clear()
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Callable[..., object]:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        return added.add_argument

    add = command("status", _status, "tell whether the shim is on here, and why")
    add("--python", metavar="PATH", help="ask about another Python interpreter")
    add("--json", action="store_true", help="print JSON for programs")

    add = command("probe", _probe, "fork children that set a title, without and with the shim")
    add("-n", "--children", type=_whole_number, default=20, metavar="N", help="how many (default: 20)")
    patience = "seconds before a child counts as hung (default: 30)"
    add("--timeout", type=_seconds, default=30.0, metavar="S", help=patience)
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


def _whole_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, 86400 at most")
    return seconds


def _existing(text: str) -> Path:
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no {text!r}")
    return Path(text)


class Progress:
    """A line on a terminal that says what is being done, and goes away."""

    last = 0.0

    @classmethod
    def show(cls, text: str) -> None:
        """Show the text in place of the one before, ten times a second at most."""
        if sys.stderr.isatty() and time.monotonic() - cls.last > 0.1:
            cls.last = time.monotonic()
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{_printable(text)[:width]}", end="", file=sys.stderr, flush=True)

    @classmethod
    def clear(cls) -> None:
        """Leave the line empty."""
        if cls.last:
            cls.last = 0.0
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _say(text: str, label: str = "") -> None:
    """Print a paragraph that fits the terminal, after a label, which is one of COLOURS."""
    width = max(40, min(100, shutil.get_terminal_size().columns))
    text = _printable(f"{label}: {text}" if label else text)
    options = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
    text = textwrap.fill(text, width, **options)  # type: ignore[arg-type]  # str and bool, as it must
    if label and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text = text.replace(label, f"\033[{COLOURS[label]}m{label}\033[m", 1)
    print(text)


def _field(name: str, value: str) -> None:
    """Print a line of a table. Paths are not wrapped, so that they can be copied."""
    print(f"  {name:13} {_printable(value)}")


def _printable(text: str) -> str:
    """Return the text without what would drive the terminal: it may come from anybody's files."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _print_json(kind: str, data: dict[str, object]) -> None:
    """Print the data with the key `schema`: the kind and its version, see docs/json-schema/."""
    print(json.dumps({"schema": f"{kind}/1", **data}, indent=2, default=str))


def _short(text: str) -> str:
    """Return the text with the paths below site-packages relative to it."""
    for directory in environment.site_directories():
        text = text.replace(f"{directory}{os.sep}", "")
    return text


def _status(options: argparse.Namespace) -> int:
    if options.python:
        return _status_of(options.python, ["--json"] if options.json else [])
    on, why, finding = doctor.status()
    trouble = finding is not None and finding.severity != "note"
    facts = environment.facts()
    if options.json:
        remedy = finding.remedy if finding else None
        _print_json("status", {"on": on, "ok": not trouble, "why": why, "remedy": remedy, **facts})
        return int(trouble)
    _say(why, label="on" if on else "off")
    if finding and finding.evidence != why:
        _say(finding.evidence, label=finding.severity)
    if finding:
        print(f"  -> {_printable(finding.remedy)}")
    print()
    _field("platform", facts["platform"])
    value = facts["variable"]["value"]
    _field("variable", f"{VARIABLE} is {'not set' if value is None else repr(value)}")
    _field("python", f"{facts['python']['version']}  {facts['python']['executable']}")
    for file in facts["startup_files"]:
        wrong = [text for key, text, well in FLAWS if file[key] is not well]
        state = ", ".join(wrong) or "in order" if file["exists"] else "missing"
        _field("startup file", f"{_short(str(file['path']))}: {state}")
    position = facts["finders"].index(__package__) if on else None
    before = "none" if not position else ", ".join(facts["finders"][:position])
    _field("finder", f"on sys.meta_path, before it: {before}" if on else "not on sys.meta_path")
    version = facts["setproctitle"]["version"]
    danger = "crashes after fork on macOS" if doctor.unsafe_on_macos(version or "") else "safe on macOS"
    _field("setproctitle", f"{version} ({danger})" if version else "not installed")
    _field("import runs", facts["setproctitle"]["origin"] or "nothing: setproctitle cannot be imported")
    return int(trouble)


def _status_of(python: str, arguments: list[str]) -> int:
    """Let another interpreter tell its status; the environment variables are those of this one."""
    command = [python, "-m", str(__package__), "status", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    if done.returncode and f"No module named {__package__}" in done.stderr:
        install = f"{python} -m pip install {environment.DISTRIBUTION}"
        print(f"the shim is not installed for {python}\n  -> {install}", file=sys.stderr)
    else:
        sys.stderr.write(done.stderr)
    return done.returncode


def _probe(options: argparse.Namespace) -> int:
    simulate = options.simulate or sys.platform != "darwin"
    settings = probe.Settings(
        children=options.children,
        timeout=options.timeout,
        method=options.method,
        threads=options.threads,
        titles=options.titles,
        simulate=simulate,
    )
    off, on = probe.probe(settings, Progress.show)
    Progress.clear()
    saved = on.served and not on.lost
    if options.json:
        runs = {"without": dataclasses.asdict(off), "with": dataclasses.asdict(on)}
        _print_json("probe", {"ok": saved, "simulated": simulate, **runs})
        return int(not saved)
    if simulate:
        _say("Simulated: a stand-in dies after fork as setproctitle does on macOS.")
    for label, run in (("without the shim", off), ("with the shim", on)):
        ends = ", ".join(f"{count} {end}" for end, count in sorted(run.ends.items()) if end != "ok")
        print(f"  {label + ':':18}{run.lost} of {run.children} children lost{f' ({ends})' if ends else ''}")
        if options.titles:
            more = len(run.listing) - 5
            shown = run.listing[:5] or ["ps shows none of them: they are dead"]
            print("    " + "\n    ".join([*shown, *([f"... and {more} more"] if more > 0 else [])]))
    for run in (off, on):
        if run.frames:
            print("where it died:", *map(_short, run.frames[:3]), sep="\n  ")
    if not on.served:
        print(f"The shim is not on here. See why: {doctor.COMMAND} status")
    elif on.lost:
        print("The shim did NOT save every child.")
    elif off.lost:
        print("The shim saved every child.")
    else:
        print("No child died, with or without the shim: this run proves nothing.")
    return int(not saved)


def _doctor(options: argparse.Namespace) -> int:
    if options.list:
        for name, check in doctor.CHECKS.items():
            _field(name, (check.__doc__ or "").splitlines()[0])
        return 0
    logs = [options.logs] if options.logs else doctor.default_logs()
    names = options.only or list(doctor.CHECKS)
    findings = doctor.diagnose(doctor.Scope(logs, options.crash_reports, Progress.show), names)
    Progress.clear()
    trouble = any(finding.severity != "note" for finding in findings)
    if options.json:
        data = [dataclasses.asdict(finding) for finding in findings]
        _print_json("doctor", {"ok": not trouble, "checks": names, "findings": data})
        return int(trouble)
    if not trouble:
        _say(f"Nothing needs attention ({len(names)} checks made).")
    for finding in findings:
        more = len(finding.details) - 3
        details = [*finding.details[:3], *([f"... and {more} more, see --json"] if more > 0 else [])]
        _say(finding.evidence, label=finding.severity)
        print(f"  -> {_printable(finding.remedy)}")
        for line in [*details, *finding.sources]:
            print(f"     {_short(_printable(line))}")
    return int(trouble)


def _sitecustomize(options: argparse.Namespace) -> int:
    text = TEMPLATE.read_text("utf-8")
    if options.write is None:
        print(text, end="")
        return 0
    path = options.write / "sitecustomize.py"
    try:
        with path.open("w" if options.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise FileExistsError(f"{path} exists; --force overwrites it") from error
    print(f"wrote {path}")
    return 0
