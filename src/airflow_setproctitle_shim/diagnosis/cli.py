"""The command line: parses, prints what the other modules found, and decides the exit status."""

from __future__ import annotations

import contextlib
import getopt
import json
import os
import re
import sys
from pathlib import Path
from typing import TextIO

from .. import __version__

HELP = """\
usage: airflow-setproctitle-shim COMMAND

Tells whether setproctitle can crash forked processes here. Changes nothing.

  status            Is the shim on in this Python? Whom does it protect?
  probe [-n N]      Does it work? Forks N workers (20) without it, then with it.
  doctor [PATH...]  What died, and what helps? Looks where macOS and Airflow
                    write, or at PATHs: crash reports, logs, directories of
                    them, or - for what is piped in.
  sitecustomize     Prints what switches the shim on where Python reads no
                    startup files.

--json prints JSON (status, probe, doctor); -V, --version; -h, --help.
Exit status: 0 fine, 1 something is to be done, 2 wrong usage.
"""
# The options that each command takes.
COMMANDS = {
    "status": ["--json"],
    "probe": ["--json", "-n"],
    "doctor": ["--json"],
    "sitecustomize": [],
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # None if closed when Python started
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # Paths may hold anything.
    status = 1
    try:
        return _run(*parse(arguments))
    except getopt.GetoptError as error:
        status, message = 2, str(error)
    except Exception as error:  # noqa: BLE001  # a traceback helps no user
        message = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    if "--json" in arguments:
        _print(json.dumps({"ok": False, "error": message}, indent=2) + "\n", sys.stdout)
    more = "For help: airflow-setproctitle-shim --help\n" * (status == 2)
    _print(f"airflow-setproctitle-shim: {message}\n{more}", sys.stderr)
    return status


def parse(arguments: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the command, the options and the PATHs that are given. Raises GetoptError where that is wrong usage."""
    given, operands = getopt.gnu_getopt(arguments, "hVn:", ["help", "version", "json"])
    options, (command, *paths) = {"-n": "20", **dict(given)}, operands or [""]
    asked = [
        option.strip("-")[0] for option, _ in given if option in ("-h", "--help", "-V", "--version")
    ]
    if asked or not arguments:
        return "help" if asked[:1] in ([], ["h"]) else "version", options, []
    if command not in COMMANDS:
        raise getopt.GetoptError(f"no command {command!r}: there are {', '.join(COMMANDS)}")
    foreign = [option for option, _ in given if option not in COMMANDS[command]]
    if foreign := foreign or paths * (command != "doctor"):
        raise getopt.GetoptError(f"{command} does not take {foreign[0]!r}")
    if not re.fullmatch(r"[1-9]\d{0,3}|10000", options["-n"], re.ASCII):
        raise getopt.GetoptError(f"-n {options['-n']!r} is not a whole number from 1 to 10000")
    return command, options, paths


def _run(command: str, options: dict[str, str], paths: list[str]) -> int:
    """Do what is asked and return the exit status."""
    if command in ("help", "version"):
        _print(HELP if command == "help" else f"{__version__}\n", sys.stdout)
        return 0
    if command == "sitecustomize":
        # Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
        file = Path(__file__).parents[1] / "as_site_customize.py"
        return int(not _print(file.read_text("utf-8"), sys.stdout))
    from . import printing  # Only what a command needs is imported.

    if command == "doctor":
        from .doctor import diagnose

        if missing := [path for path in paths if path != "-" and not os.path.exists(path)]:
            raise getopt.GetoptError(f"there is no file or directory {missing[0]!r}")
        data, lines = (found := diagnose(paths)), printing.of_report(found)
    elif command == "probe":
        from .probe import probe

        found_probe = probe(int(options["-n"]))
        data, lines = found_probe.as_json(), printing.of_probe(found_probe)
    else:
        from .status import status

        found_status = status()
        data, lines = found_status.as_json(), printing.of_status(found_status)
    # What would drive the terminal is not printed: it may come from anybody's files.
    lines = ["".join(it if it.isprintable() else "?" for it in line) for line in lines]
    _print(
        (json.dumps(data, indent=2) if "--json" in options else "\n".join(lines)) + "\n", sys.stdout
    )
    return int(not data["ok"])  # whatever becomes of the output


def _print(text: str, stream: TextIO) -> bool:
    """Print text. Return whether it could be written; if not, a line on stderr says so."""
    try:
        print(text, end="", file=stream, flush=True)
        return True
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # Nor is what is left written at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):  # A reader that left is no error.
            return True
        if stream is sys.stdout:
            _print(f"airflow-setproctitle-shim: cannot print: {error}\n", sys.stderr)
        return False
