"""The command line: prints what environment.py, probe.py and doctor.py found. Exit status 0: fine,
1: something needs attention, 2: wrong usage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import VARIABLE, __version__, probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments` (default: the process's) and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except probe.ProbeError as error:
        print(f"airflow-setproctitle-shim: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("airflow-setproctitle-shim: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-setproctitle-shim",
        description="Keeps setproctitle from crashing forked processes on macOS. "
        f"It needs no command to work; {VARIABLE}=off switches it off.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("probe", help="fork children that set a title, without and with the shim")
    command.set_defaults(run=_probe)
    command.add_argument(
        "-n", "--children", type=_whole_number, default=20, metavar="N", help="children to fork (default: 20)"
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds before a child counts as hung (default: 30)",
    )
    command.add_argument(
        "--method", choices=probe.METHODS, default="fork", help="how children start (default: fork)"
    )
    command.add_argument(
        "--threads", action="store_const", const=4, default=0, help="fork with four other threads running"
    )
    command.add_argument(
        "--titles", action="store_true", help="read the titles back with ps (needs the extra `titles`)"
    )
    command.add_argument(
        "--simulate", action="store_true", help="use the stand-in for setproctitle, as off macOS"
    )
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


def _probe(options: argparse.Namespace) -> int:
    simulate = options.simulate or sys.platform != "darwin"
    if simulate:
        print("Simulated: a stand-in dies after fork as setproctitle does on macOS.")
    settings = probe.Settings(
        children=options.children,
        timeout=options.timeout,
        method=options.method,
        threads=options.threads,
        titles=options.titles,
        simulate=simulate,
    )
    off, on = probe.probe(settings)
    for label, run in (("without the shim", off), ("with the shim", on)):
        ends = ", ".join(f"{count} {end}" for end, count in sorted(run.ends.items()) if end != "ok")
        print(f"  {label + ':':18}{run.lost} of {run.children} children lost{f' ({ends})' if ends else ''}")
    for line in [line for run in (off, on) for line in run.frames]:
        print(line.rstrip())
    if on.lost:
        print("The shim did NOT save every child.")
    elif not on.served:
        print(f"The shim is not on here. See why: {sys.executable} -m airflow_setproctitle_shim status")
    elif off.lost:
        print("The shim saved every child.")
    else:
        print("No child died, with or without the shim: this run proves nothing.")
    return 1 if on.lost or not on.served else 0
