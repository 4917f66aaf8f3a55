"""The command line: parses, prints what the other modules found, and decides the exit status."""

from __future__ import annotations

import contextlib
import getopt
import json
import os
import sys
from pathlib import Path
from typing import TextIO

from .. import __version__

HELP = """\
usage: airflow-setproctitle-shim COMMAND

Keeps setproctitle from crashing forked processes on macOS.
These commands tell whether it does. None of them changes anything.

  status            Is the shim on in this Python? Whom does it protect?
  probe [-n N]      Does it work? Forks N workers (20) without it, then with it.
  doctor [PATH...]  What died, and what helps? Looks where macOS and Airflow
                    write, or at PATHs: crash reports, logs, directories of
                    them, or - for what is piped in.
  sitecustomize     Prints what switches the shim on where Python reads no
                    startup files.

  --json            Print JSON (status, probe, doctor).
  -V, --version     Print the version.
  -h, --help        Print this.

Exit status: 0 fine, 1 something is to be done, 2 wrong usage.
"""
MOST = 10_000  # workers
# And the options that they take.
COMMANDS = {"status": ["--json"], "probe": ["--json", "-n"], "doctor": ["--json"], "sitecustomize": []}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # None if closed when Python started
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # Paths may hold anything.
    try:
        return _run(arguments)
    except Exception as error:  # noqa: BLE001  # a traceback helps no user
        usage = isinstance(error, getopt.GetoptError)
        message = (
            str(error)
            if isinstance(error, (getopt.GetoptError, OSError))
            else f"{type(error).__name__}: {error}"
        )
    if "--json" in arguments:
        _print(json.dumps({"ok": False, "error": message}, indent=2) + "\n", sys.stdout)
    help_ = "For help: airflow-setproctitle-shim --help\n" * usage
    _print(f"airflow-setproctitle-shim: {message}\n{help_}", sys.stderr)
    return 1 + usage


def parse(arguments: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the command, the options and the PATHs that are given. Raises GetoptError where that is wrong usage."""
    given, operands = getopt.gnu_getopt(arguments, "hVn:", ["help", "version", "json"])
    options = dict(given)
    if not arguments or {"-h", "--help", "-V", "--version"} & options.keys():
        return "help" if {"-V", "--version"}.isdisjoint(options) else "version", options, []
    command, *paths = operands or [""]
    if command not in COMMANDS:
        raise getopt.GetoptError(f"no command {command!r}: there are {', '.join(COMMANDS)}")
    more = [option for option in options if option not in COMMANDS[command]] + paths * (command != "doctor")
    if more:
        raise getopt.GetoptError(f"{command} does not take {more[0]!r}")
    number = options.get("-n", "1")
    if not (number.isascii() and number.isdigit() and 0 < int(number) <= MOST):
        raise getopt.GetoptError(f"-n {number!r} is not a whole number from 1 to {MOST}")
    return command, options, paths


def _run(arguments: list[str]) -> int:
    """Do what is asked and return the exit status. Only what it needs is imported."""
    command, options, paths = parse(arguments)
    if command in ("help", "version"):
        _print(HELP if command == "help" else f"{__version__}\n", sys.stdout)
        return 0
    if command == "sitecustomize":
        # Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
        file = Path(__file__).parents[1] / "as_site_customize.py"
        return int(not _print(file.read_text("utf-8"), sys.stdout))
    if missing := [path for path in paths if path != "-" and not os.path.exists(path)]:
        raise getopt.GetoptError(f"there is no file or directory {missing[0]!r}")
    from . import doctor, printing, probe, status

    if command == "doctor":
        data, lines = (found := doctor.diagnose(paths)), printing.of_report(found)
    elif command == "probe":
        data, lines = (found := probe.probe(int(options.get("-n", "20")))), printing.of_probe(found)
    else:
        data, lines = (found := status.status()), printing.of_status(found)
    if "--json" in options:
        lines = [json.dumps(data, indent=2)]
    else:  # What would drive the terminal is not printed: it may come from anybody's files.
        lines = ["".join(it if it.isprintable() else "?" for it in line) for line in lines]
    _print("\n".join([*lines, ""]), sys.stdout)
    return int(not data["ok"])  # whatever becomes of the output


def _print(text: str, stream: TextIO) -> bool:
    """Print text. Return whether it could be written; if not, a line on stderr says so."""
    try:
        print(text, end="", file=stream, flush=True)
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # Nor is what is left written at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError) and stream is sys.stdout:  # A reader that left is no error.
            _print(f"airflow-setproctitle-shim: cannot print: {error}\n", sys.stderr)
        return isinstance(error, BrokenPipeError)
    return True
