"""The command line: parses, prints what the other modules found, and decides the exit status."""

from __future__ import annotations

import contextlib
import getopt
import json
import os
import re
import sys
from importlib.resources import files
from typing import NamedTuple, Protocol, TextIO

from .. import __version__

HELP = """\
usage: airflow-setproctitle-shim COMMAND

Tells whether setproctitle can crash forked processes here. Changes nothing.

  status            Is the shim on in this Python? Which programs does it
                    protect?
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


class Asked(NamedTuple):
    """What the command line asks for."""

    command: str  # "help", "version", or one of COMMANDS
    as_json: bool = False
    children: int = 20
    paths: tuple[str, ...] = ()


class Found(Protocol):
    """What a command found out."""

    @property
    def ok(self) -> bool:
        """Whether nothing is to be done."""

    def as_json(self) -> dict[str, object]:
        """Return what is printed with --json."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed when Python started
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # Paths may hold anything.
    try:
        return _run(parse(arguments))
    except getopt.GetoptError as error:
        status, message, more = 2, str(error), "For help: airflow-setproctitle-shim --help\n"
    except OSError as error:
        status, message, more = 1, str(error), ""
    except Exception as error:  # noqa: BLE001  # a traceback helps no user
        status, message, more = 1, f"{type(error).__name__}: {error}", ""
    if "--json" in arguments:
        _print(json.dumps({"ok": False, "error": message}, indent=2) + "\n", sys.stdout)
    _print(f"airflow-setproctitle-shim: {message}\n{more}", sys.stderr)
    return status


def parse(arguments: list[str]) -> Asked:
    """Return what is asked for. Raises GetoptError where that is wrong usage."""
    given, operands = getopt.gnu_getopt(arguments, "hVn:", ["help", "version", "json"])
    for option, _ in given:
        if option in ("-h", "--help"):
            return Asked("help")
        if option in ("-V", "--version"):
            return Asked("version")
    if not arguments:
        return Asked("help")
    command, *paths = operands or [""]
    if command not in COMMANDS:
        raise getopt.GetoptError(f"no command {command!r}: there are {', '.join(COMMANDS)}")
    foreign = [option for option, _ in given if option not in COMMANDS[command]]
    if command != "doctor":
        foreign += paths
    if foreign:
        raise getopt.GetoptError(f"{command} does not take {foreign[0]!r}")
    children = dict(given).get("-n", "20")
    if not re.fullmatch(r"[1-9]\d{0,3}|10000", children, re.ASCII):
        raise getopt.GetoptError(f"-n {children!r} is not a whole number from 1 to 10000")
    return Asked(command, ("--json", "") in given, int(children), tuple(paths))


def _run(asked: Asked) -> int:
    """Do what is asked and return the exit status."""
    if asked.command == "help":
        _print(HELP, sys.stdout)
        return 0
    if asked.command == "version":
        _print(f"{__version__}\n", sys.stdout)
        return 0
    if asked.command == "sitecustomize":
        # Not named sitecustomize: a wheel with a file of that name looks like malware to scanners.
        # The package may lie in an archive.
        template = files("airflow_setproctitle_shim") / "as_site_customize.py"
        return int(not _print(template.read_text("utf-8"), sys.stdout))
    found, lines = _find(asked)
    if asked.as_json:
        text = json.dumps(found.as_json(), indent=2)
    else:
        # What would drive the terminal is not printed: it may come from anybody's files.
        text = "\n".join("".join(it if it.isprintable() else "?" for it in line) for line in lines)
    _print(f"{text}\n", sys.stdout)
    return int(not found.ok)  # whatever becomes of the output


def _find(asked: Asked) -> tuple[Found, list[str]]:
    """Return what a command found out, and the lines that tell it to people."""
    from . import printing  # Only what a command needs is imported.

    if asked.command == "doctor":
        from .doctor import diagnose

        for path in asked.paths:
            if path != "-" and not os.path.exists(path):
                raise getopt.GetoptError(f"there is no file or directory {path!r}")
        diagnosis = diagnose([*asked.paths])
        return diagnosis, printing.of_report(diagnosis)
    if asked.command == "probe":
        from .probe import probe

        probed = probe(asked.children)
        return probed, printing.of_probe(probed)
    from .status import status

    here = status()
    return here, printing.of_status(here)


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
