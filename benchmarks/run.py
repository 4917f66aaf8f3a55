"""Measures what the shim costs. Needs Linux, valgrind, pip and a network.

--write keeps it in docs/measured.json, of which `python tools/pages.py` makes README.md's table. Each cost compares a throw-away environment with the same one where the shim does nothing. Instructions are
callgrind's count for a whole process: the same in every run, on a busy machine, too.

Tried for a cheaper start, and not kept: a `.pth` line that reads the variable itself (scanners take one with
os.environ for one that can read credentials); a `.start` file (Python 3.15 imports pkgutil and re for it, on every
platform); a module as its own finder (it cannot be copied); no docstrings and annotations (help() and types are
worth more).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import measured

OFF = {"AIRFLOW_SETPROCTITLE_SHIM": "off"}
FIXED = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
}
CALLGRIND = (
    "valgrind",
    "--tool=callgrind",
    "--callgrind-out-file=/dev/null",
    "--trace-children=yes",
)

# The most that each may cost. Whoever changes one runs tools/pages.py: the pages promise them.
OFF_MACOS, ON_MACOS = "start: not on macOS", "start: on macOS (simulated)"
LIMITS = {
    "import setproctitle, cold": 1 / 50,
    "import setproctitle, logging loaded": 0.45,
    "setproctitle(title)": 1 / 2,
    "any other import": 1.2,
    "status": 10,
}
DOCTOR_LIMITS = {
    "doctor, 100 MB": 10,  # seconds
    "doctor, memory": 60,  # MB
    "doctor, twice": 2.6,  # times as long
}
# A start's limit is another on the Pythons that the table has; "" are all others.
START_LIMITS = {
    OFF_MACOS: {"3.11": 0.009, "3.15": 0.006, "": 0.01},
    ON_MACOS: {"3.11": 0.036, "3.15": 0.036, "": 0.04},
}

# Startup files run in the order of their names: the shim's sees macOS, nothing that runs later does.
SIMULATED_MACOS = {
    "aaa_simulated_macos.pth": 'import sys; sys.platform = "darwin"\n',
    "airflow_setproctitle_simulated_macos_ends.pth": 'import sys; sys.platform = "linux"\n',
}

# Others with a startup file. virtualenv and uv write theirs, which lies elsewhere in the wheel, into each venv.
PEERS = ("coverage==7.17.3", "setuptools==84.2.1", "virtualenv==21.15.8")
WRITTEN_BY_VIRTUALENV = "virtualenv/create/via_global_ref/_virtualenv.py"

# Without the collector, as one collection costs more than an import. What a few allocations cost depends on
# those before them, so `padding` is varied.
IMPORT = """
import gc, sys{loaded}
gc.disable()
padding = [sys.intern("padding%d" % number) for number in range({padding})]
import """
# Asks as importlib._bootstrap._find_spec() does.
MISS = """
import sys
class Empty:
    def find_spec(self, name, path=None, target=None):
        return None
def ask(finder, times):
    for _ in range(times):
        find_spec = finder.find_spec
        find_spec("airflow.models", None, None)
"""
CALL = """
import timeit
from setproctitle import setproctitle
title = "airflow worker -- LocalExecutor: idle"
print(min(timeit.repeat("setproctitle(title)", globals=globals(), number=20_000, repeat=5)) / 20_000)
"""
# Tells on stderr how much memory it took, in kB: getrusage() counts that of the process that started it, too.
DOCTOR = """
import pathlib, re, sys
from airflow_setproctitle_shim.diagnosis import cli
cli.main(["doctor", "--json", sys.argv[1]])
status = pathlib.Path("/proc/self/status").read_text()
print(re.findall(r"VmHWM:\\s*(\\d+) kB", status)[0], file=sys.stderr)
"""
# What programs write when a worker was killed. {n} and {id} make the lines differ.
DEATHS = {
    "gunicorn": "[2026-11-27 10:05:27 +0000] [1] [ERROR] Worker (pid:{n}) was sent SIGSEGV!\n",
    "Airflow 3": "2026-11-27 10:05:27 [info     ] Process exited                 [supervisor]"
    " exit_code=<Negsignal.SIGSEGV: -11> pid={n} signal_sent=SIGSEGV\n",
    "Celery's tasks": "[2026-11-27 10:05:27,123: ERROR/MainProcess] Task {id} raised WorkerLostError('Worker exited"
    " prematurely: signal 11 (SIGSEGV) Job: {n}.')\n",
    "uvicorn": "INFO:     Waiting for child process [{n}]\nINFO:     Child process [{n}] died\n",
    "faulthandler": "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1f (most recent call"
    " first):\n"
    + '  File "/Users/me/.venv/lib/python3.12/site-packages/a/b.py", line {n} in function\n' * 9
    + "\nExtension modules: a, b (total: 2)\n",
}
LOG = ROOT / "tests/data/logs/airflow-2.10.5.log"
# What others write, in which the same words stand.
NO_DEATHS = {
    "tracebacks": "Traceback (most recent call last):\n"
    + '  File "/Users/me/.venv/lib/python3.12/site-packages/a/b.py", line {n}, in function\n'
    "    raise ValueError({n})\n" * 3 + "ValueError: {n}\n",
    "lines of JSON": '{{"event": "process exited", "exit_code": 0, "status_code": {n}, "signal": null,'
    ' "timestamp": "2026-11-27T10:00:00Z"}}\n',
    "one line": '{{"event": "process exited", "exit_code": 0, "pid": {n}}}, ',
    "JSON in columns": '{{\n  "event": "process exited",\n  "exit_code": 0,\n'
    + '  "argument": "a value of some length, as most have",\n' * 9
    + '  "pid": {n},\n  "children": [\n    {n}\n  ]\n}}\n',
}
# Crash reports, whole and broken: time must grow with their size only.
CRASH = ROOT / "tests/data/cases/bagnabit4/Python-2026-09-21-164012.ips"
REPORTS: dict[str, Callable[[], str]] = {
    "files": lambda: CRASH.read_text() + "\n",
    "texts": lambda: CRASH.with_name("pasted.txt").read_text().partition("-----------\nFull")[0],
    "files that are cut off": lambda: CRASH.read_text()[:1800] + "\n",
    "heads of files": lambda: '{"app_name":"Python","bug_type":"309"\n',
    "braces": lambda: "{\n",
    "keys of files": lambda: '  "procName" : "Python",\n',
    "heads of texts": lambda: "Process:  Python [1]\nException Type:  EXC_CRASH (SIGABRT)\n",
    "frames": lambda: "3   libfoo.dylib   0x00007fff12345678 foo + 12\n",
}


class Figure(NamedTuple):
    """What was measured, its cost and how that is written, and the cost in other words."""

    what: str
    cost: float
    form: str
    words: str

    @property
    def text(self) -> str:
        return f"{self.form.format(self.cost)} ({self.words})"

    def at_most(self, python: str) -> str:
        """Return the most that it may cost on a version of Python, "" if there is no limit."""
        most = limit(self.what, python)
        return self.form.format(most) if most < math.inf else ""


def limit(what: str, python: str) -> float:
    """Return the most that something may cost on a version of Python: infinity where nothing was set."""
    if what in START_LIMITS:
        minor = ".".join(python.split(".")[:2])
        return START_LIMITS[what].get(minor, START_LIMITS[what][""])
    for begin, most in DOCTOR_LIMITS.items():
        if what.startswith(begin):
            return most
    return LIMITS.get(what, math.inf)


class Venv(NamedTuple):
    """A virtual environment."""

    path: Path

    @property
    def site_packages(self) -> Path:
        return next(self.path.glob("lib/python*/site-packages"))

    def twin(self, name: str) -> Venv:
        """Return a copy, which must be made before bytecode is written. Names are of one length."""
        shutil.copytree(self.path, self.path.with_name(name), symlinks=True)
        return Venv(self.path.with_name(name))

    def inert(self, name: str) -> Venv:
        """Return a copy in which each line of a startup file is a comment, the simulation's excepted."""
        twin = self.twin(name)
        for path in twin.site_packages.glob("*.pth"):
            if path.name not in SIMULATED_MACOS:
                path.write_text(re.sub("^", "#", path.read_text(), flags=re.MULTILINE))
        return twin

    def command(self, *arguments: str) -> list[str]:
        return [str(self.path / "bin/python"), *arguments]

    def instructions(self, *arguments: str, **environ: str) -> int:
        """Return how many instructions Python takes from start to end, its children's included."""
        run(self.command(*arguments), **environ)  # writes the bytecode
        printed = run([*CALLGRIND, *self.command(*arguments)], **environ).stderr
        return sum(map(int, re.findall(r"Collected : (\d+)", printed)))

    def difference(self, program: str, other: str, **environ: str) -> int:
        """Return how many instructions `program` takes more than another."""
        ours, others = (self.instructions("-c", code, **environ) for code in (program, other))
        return ours - others


class Workshop:
    """Makes environments of one interpreter in a directory."""

    def __init__(self, directory: Path, python: str) -> None:
        self.directory, self.python = directory, python
        self.version = run(
            [python, "-c", "import platform; print(platform.python_version())"]
        ).stdout.strip()
        self.minor = self.version.rpartition(".")[0]
        pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(ROOT))
        self.ours = self.venv("ours0", str(next(directory.glob("*.whl"))), "setproctitle<=1.3.8")
        self.macos = self.ours.twin("macos0")
        for name, text in SIMULATED_MACOS.items():
            (self.macos.site_packages / name).write_text(text)

    def venv(self, name: str, *requirements: str) -> Venv:
        """Return a new environment with the requirements, installed without running its Python."""
        run([self.python, "-m", "venv", "--without-pip", str(self.directory / name)])
        venv = Venv(self.directory / name)
        where = ("--target", str(venv.site_packages), "--python-version", self.minor)
        pip("install", "--no-compile", "--only-binary", ":all:", *where, *requirements)
        if (venv.site_packages / WRITTEN_BY_VIRTUALENV).exists():
            shutil.copy(venv.site_packages / WRITTEN_BY_VIRTUALENV, venv.site_packages)
            (venv.site_packages / "_virtualenv.pth").write_text("import _virtualenv\n")
        return venv


def our_starts(at: Workshop) -> Iterator[Figure]:
    """`python -c pass` with the shim, over the same with its startup file made inert."""
    yield start(OFF_MACOS, at.ours, at.ours.inert("ours1"))
    inert = at.macos.inert("macos1")
    yield start(ON_MACOS, at.macos, inert)
    for value in ("off", "titles"):
        yield start(f"{ON_MACOS}, {value}", at.macos, inert, AIRFLOW_SETPROCTITLE_SHIM=value)


def other_starts(at: Workshop) -> Iterator[Figure]:
    """The same with others' startup files."""
    for number, requirement in enumerate(PEERS):
        venv = at.venv(f"peer{number}0", "--no-deps", requirement)
        name = requirement.replace("==", " ")
        yield start(f"start: {name}", venv, venv.inert(f"peer{number}1"))


def start(what: str, venv: Venv, inert: Venv, **environ: str) -> Figure:
    live, base = (each.instructions("-c", "pass", **environ) for each in (venv, inert))
    return Figure(what, live / base - 1, "{:+.2%}", f"{(live - base) / 1e6:.2f} M")


def imports(at: Workshop) -> Iterator[Figure]:
    """`import setproctitle`, over the real one."""

    for what, loaded in (("cold", ""), ("logging loaded", ", logging")):
        starts = [IMPORT.format(loaded=loaded, padding=padding) for padding in (0, 150, 700)]
        ours, real = (
            statistics.median(
                at.macos.difference(each + "setproctitle", each + "sys", **environ)
                for each in starts
            )
            for environ in ({}, OFF)
        )
        yield Figure(f"import setproctitle, {what}", ours / real, "{:.3f}", f"{ours / 1e6:.2f} M")


def calls(at: Workshop) -> Iterator[Figure]:
    """A call, over the real one. In seconds, as much of the real one's work is the kernel's."""
    command = at.macos.command("-c", CALL)
    both = [[float(run(command, **environ).stdout) for environ in ({}, OFF)] for _ in range(10)]
    ours, real = map(min, zip(*both))
    yield Figure("setproctitle(title)", ours / real, "{:.2f}", f"{ours * 1e9:.0f} ns")


def misses(at: Workshop) -> Iterator[Figure]:
    """What the finder costs every other import, over a finder whose find_spec() is empty."""
    ours, empty = (
        at.macos.difference(f"{MISS}ask({finder}, 10_000)", f"{MISS}ask({finder}, 0)")
        for finder in ("sys._airflow_setproctitle_shim", "Empty()")
    )
    yield Figure("any other import", ours / empty, "{:.2f}", f"{ours / 10_000:.0f}")


def status(at: Workshop) -> Iterator[Figure]:
    """The command `status`, over `python -c pass`."""
    ours = at.macos.instructions("-m", "airflow_setproctitle_shim", "status")
    nothing = at.macos.instructions("-c", "pass")
    yield Figure("status", ours / nothing, "{:.1f}", f"{ours / 1e6:.0f} M")


def doctor(at: Workshop) -> Iterator[Figure]:
    """CPU seconds and memory that `doctor` takes for a log of 100 MB."""
    lines = {**DEATHS, **NO_DEATHS}
    ids = [uuid.uuid5(uuid.NAMESPACE_OID, str(n)) for n in range(10_000)]
    kinds = {
        kind: "".join(line.format(n=n, id=id_) for n, id_ in enumerate(ids))
        for kind, line in lines.items()
    }
    kinds["Airflow 2.10.5's log"] = LOG.read_text()
    most = 0.0
    for kind, text in kinds.items():
        told = diagnosed(at, text, 100_000_000)
        if kind in DEATHS and not told.signs:
            sys.exit(f"doctor saw no sign of a death in {DEATHS[kind]}")
        most = max(most, told.megabytes)
        yield Figure(f"doctor, 100 MB of {kind}", told.seconds, "{:.1f} s", f"{told.signs:,} signs")
    yield Figure("doctor, memory", most, "{:.0f} MB", "the most for any of these")


def growth(at: Workshop) -> Iterator[Figure]:
    """How many times longer `doctor` takes for twice as many crash reports."""
    start = diagnosed(at, "\n", 1).seconds
    most, worst = 0.0, ""
    for kind, text in REPORTS.items():
        once, twice = (diagnosed(at, text(), size).seconds - start for size in (10**6, 2 * 10**6))
        if twice / once > most:
            most, worst = twice / once, f"the most, for {kind}: {once:.1f} s for 1 MB"
    yield Figure("doctor, twice as many crash reports", most, "{:.1f} times", worst)


class Told(NamedTuple):
    """What `doctor` found, and what that took."""

    signs: int
    seconds: float
    megabytes: float


def diagnosed(at: Workshop, text: str, size: int) -> Told:
    """Have `doctor` read a file of a text, again and again, up to a size in bytes."""
    path = at.directory / "a.log"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(max(1, size // len(text.encode()))):
            file.write(text)
    process = subprocess.Popen(
        at.macos.command("-c", DOCTOR, str(path)),
        env=FIXED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    report, most = json.loads(process.stdout.read()), int(process.stderr.read())
    _, _, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    process.stderr.close()
    signs = sum(death["count"] for death in report["deaths"])
    return Told(signs, usage.ru_utime + usage.ru_stime, most / 1000)


def run(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment that is always the same. Exits with its complaints if it fails."""
    done = subprocess.run(
        # Each import looks through the working directory, so that is always the same one.
        command,
        env={**FIXED, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # `status` and `doctor` end with 1 when something is to be done.
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def pip(*arguments: str) -> None:
    """Run pip of the Python that runs this."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        sys.exit(f"pip {arguments[0]} failed, see above")


def interpreter(value: str) -> str:
    """Return the path of the Python that is meant. Raises argparse.ArgumentTypeError."""
    path = shutil.which(value) or shutil.which(f"python{value}")
    program = (
        "import sys; sys.exit(sys.implementation.name != 'cpython' or sys.version_info < (3, 9))"
    )
    if not path or subprocess.run([path, "-c", program], check=False).returncode:
        raise argparse.ArgumentTypeError(
            f"{value!r} is no path, name or version of a CPython from 3.9 on"
        )
    return path


def main() -> int:
    """Measure and print. Returns 1 if --check was given and a limit is not met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\nTried")[0])
    parser.add_argument("--python", type=interpreter, action="append", help="path, name or version")
    parser.add_argument(
        "--quick", action="store_true", help="only the shim's own starts, in a minute"
    )
    parser.add_argument(
        "--check", action="store_true", help="end with 1 and say so if a limit is not met"
    )
    parser.add_argument("--write", action="store_true", help="keep it for the pages")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--write needs a whole run, without --quick")
    if not shutil.which("valgrind"):
        parser.error("valgrind is missing; on Debian and Ubuntu: apt-get install valgrind")
    measurements = (our_starts, other_starts, imports, calls, misses, status, doctor, growth)
    columns: dict[str, list[dict[str, object]]] = {}
    missed = []
    for python in options.python or [sys.executable]:
        with tempfile.TemporaryDirectory() as directory:
            at = Workshop(Path(directory), python)
            columns[at.version] = []
            for measure in measurements[:1] if options.quick else measurements:
                for figure in measure(at):
                    columns[at.version].append(figure._asdict())
                    line = f"Python {at.version}, {figure.what}: {figure.text}"
                    print(line, flush=True)
                    if figure.cost > limit(figure.what, at.version):
                        missed.append(f"NOT MET: {line}, at most {figure.at_most(at.version)}")
    if options.write:
        machine = f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores"
        measured.write(
            "benchmark", {"date": str(date.today()), "machine": machine, "pythons": columns}
        )
    for line in missed:
        print(line, file=sys.stderr)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
