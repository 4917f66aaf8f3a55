"""What the benchmark measures with: Python interpreters, throw-away environments, and three measures.

Instructions are callgrind's: the same program gives the same number every time, on a busy machine
too. Wall time is hyperfine's and peak memory the kernel's; both are taken in turns, a few runs of
each command in each round, so that a drift of the machine falls on all of them alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compatibility.pythons import APT_GET
from environments import ROOT, SIMULATED_MACOS, UV, pyenv_pythons, uv

# Always the same, so that instructions do not depend on who runs the benchmark.
ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
}
SID = Path(os.environ.get("SID_CHROOT", "/var/tmp/sid-pythons"))
PEAK = "print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"


class Missing(Exception):
    """Something the measurement needs is not here; the message says what and how to get it."""


def require(*programs: str) -> None:
    """Install the Debian packages of programs that are missing; raises Missing if that is not possible."""
    missing = [program for program in programs if not shutil.which(program)]
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() or not shutil.which("apt-get"):
        raise Missing(f"{', '.join(missing)}; on Debian or Ubuntu: sudo {' '.join(command)}")
    subprocess.run(["apt-get", "update", "--quiet"], check=False, stdout=subprocess.DEVNULL)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{', '.join(missing)}; apt-get could not install them: {done.stderr.strip()}")


def output(command: Sequence[str], environ: dict[str, str] | None = None) -> str:
    """Run a command in the fixed environment; return what it printed, stderr included. Raises RuntimeError."""
    done = subprocess.run(
        command,
        check=False,
        env={**ENVIRON, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


@dataclass(frozen=True)
class Python:
    """An interpreter, maybe in a chroot: `prefix` goes before a command and `root` before a path."""

    version: str
    executable: str
    prefix: tuple[str, ...] = ()
    root: Path = Path("/")


@contextlib.contextmanager
def python(version: str) -> Iterator[Python]:
    """Give an interpreter of that version: from PATH, pyenv or uv, else from a chroot of Debian sid."""
    executable = _executable(version)
    if executable:
        yield Python(version, executable)
    else:
        with _sid(version):
            yield Python(version, f"/usr/bin/python{version}", ("chroot", str(SID)), SID)


def _executable(version: str) -> str | None:
    """Return the path of an interpreter of that version that runs, or None."""
    found = subprocess.run(
        [UV or "uv", "python", "find", version], check=False, capture_output=True, text=True
    )
    for executable in (
        shutil.which(f"python{version}"),
        *pyenv_pythons(f"{version}.*"),
        found.stdout.strip(),
    ):
        with contextlib.suppress(OSError, RuntimeError):
            if executable and output([executable, "-V"]).startswith(f"Python {version}."):
                return executable
    return None


@contextlib.contextmanager
def _sid(version: str) -> Iterator[None]:
    """Have a chroot of Debian sid with that Python and valgrind, and /proc in it. Raises Missing."""
    if os.geteuid() or not shutil.which("apt-get"):
        raise Missing(
            f"Python {version}: not on PATH, nor by pyenv or uv; root on Debian would get it from sid by debootstrap"
        )
    packages = f"python{version}", "valgrind"
    apt_get = ["chroot", str(SID), *APT_GET]
    mounted = (SID / "proc/self").exists()
    try:
        if not (SID / "etc/debian_version").exists():
            require("debootstrap")
            output(["debootstrap", "--variant=minbase", "sid", str(SID)])
        if not all((SID / "usr/bin" / program).exists() for program in packages):
            output([*apt_get, "update"])
            output([*apt_get, "install", "--no-install-recommends", *packages])
        if not mounted:
            output(["mount", "-t", "proc", "proc", str(SID / "proc")])
    except RuntimeError as error:
        raise Missing(f"Python {version}: {error}") from error
    try:
        yield
    finally:
        if not mounted:
            subprocess.run(["umount", str(SID / "proc")], check=False)


class Workshop:
    """Makes environments, each in a path of the same length, and takes them away when `stack` is closed."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._made = 0
        self._directories: dict[Path, Path] = {}
        self._wheel: str | None = None

    @property
    def wheel(self) -> str:
        """The package's wheel, built from this checkout."""
        if self._wheel is None:
            directory = self._stack.enter_context(tempfile.TemporaryDirectory())
            uv("build", "--quiet", "--wheel", "--out-dir", directory, str(ROOT))
            self._wheel = str(next(Path(directory).glob("*.whl")))
        return self._wheel

    def venv(self, python: Python, *requirements: str, macos: bool = False) -> Venv:
        """Return a new environment with what is required; "OURS" stands for this package's wheel."""
        self._made += 1
        if python.root not in self._directories:
            directory = tempfile.TemporaryDirectory(dir=python.root / "tmp")
            self._directories[python.root] = Path(self._stack.enter_context(directory))
        outside = self._directories[python.root] / f"venv{self._made:03}"
        venv = Venv(python, outside, Path("/") / outside.relative_to(python.root))
        output([*python.prefix, python.executable, "-m", "venv", "--without-pip", str(venv.inside)])
        venv.install(*(self.wheel if requirement == "OURS" else requirement for requirement in requirements))
        if macos:
            venv.write(SIMULATED_MACOS)
        return venv

    def twin(self, venv: Venv) -> Venv:
        """Return a copy of an environment, with its bytecode."""
        self._made += 1
        name = f"venv{self._made:03}"
        twin = Venv(venv.python, venv.outside.with_name(name), venv.inside.with_name(name))
        shutil.copytree(venv.outside, twin.outside, symlinks=True)
        return twin


@dataclass(frozen=True)
class Venv:
    """A virtual environment, where it is seen from outside and from inside its root."""

    python: Python
    outside: Path
    inside: Path

    @property
    def site_packages(self) -> Path:
        return self.outside / f"lib/python{self.python.version}/site-packages"

    def install(self, *requirements: str) -> None:
        """Install wheels without running the environment's Python; options may stand among them."""
        if requirements:
            where = ["--target", str(self.site_packages), "--python-version", self.python.version]
            uv(
                "pip",
                "install",
                "--quiet",
                "--link-mode",
                "copy",
                "--only-binary",
                ":all:",
                *where,
                *requirements,
            )

    def write(self, files: dict[str, str]) -> None:
        """Write files into site-packages."""
        for name, text in files.items():
            (self.site_packages / name).write_text(text)

    def make_inert(self) -> None:
        """Comment out every line of every startup file but those of the simulation."""
        for path in self.site_packages.glob("*.pth"):
            if path.name not in SIMULATED_MACOS:
                path.write_text("".join(f"#{line}\n" for line in path.read_text().splitlines()))

    def command(self, *arguments: str) -> list[str]:
        """The command that runs this environment's Python."""
        return [*self.python.prefix, str(self.inside / "bin/python"), *arguments]

    def run(self, *arguments: str, **environ: str) -> str:
        """Run Python, return what it printed. Raises RuntimeError if it fails."""
        return output(self.command(*arguments), environ)

    def warm(self, code: str, **environ: str) -> None:
        """Have the bytecode of all that `code` imports written; raises RuntimeError if it is not used then."""
        self.run("-v", "-c", code, **environ)  # Verbose as the second run, which imports a little more.
        compiled = re.findall(
            r"code object from '?(\S+\.py)'?$", self.run("-v", "-c", code, **environ), re.MULTILINE
        )
        if compiled:
            raise RuntimeError(f"these were compiled again, so the figures would be wrong: {compiled}")

    def instructions(self, code: str, **environ: str) -> int:
        """How many instructions `python -c code` takes, start and end included, with warm bytecode."""
        self.warm(code, **environ)
        valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        prefix = self.python.prefix
        printed = output([*prefix, *valgrind, *self.command("-c", code)[len(prefix) :]], environ)
        collected = re.search(r"Collected : (\d+)", printed)
        assert collected, printed
        return int(collected[1])


@dataclass(frozen=True)
class Command:
    """A command whose wall time or peak memory is wanted."""

    venv: Venv
    arguments: tuple[str, ...]
    environ: tuple[tuple[str, str], ...] = ()


def wall_times(commands: Sequence[Command], rounds: int) -> list[list[float]]:
    """Return for each command the median of its wall time in seconds, for each of the rounds."""
    medians: dict[int, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds):
            order = list(range(len(commands)))[:: -1 if number % 2 else 1]
            report = f"{directory}/report.json"
            hyperfine = ["hyperfine", "-N", "--style", "none", "--warmup", "1", "--runs", "7"]
            words = [_quoted(commands[index]) for index in order]
            output([*hyperfine, "--export-json", report, *words])
            for index, result in zip(order, json.loads(Path(report).read_text())["results"]):
                medians[index].append(result["median"])
    return [medians[index] for index in range(len(commands))]


def _quoted(command: Command) -> str:
    """Return the command as hyperfine reads it: words, quoted as in a shell."""
    settings = [f"{name}={value}" for name, value in command.environ]
    return " ".join(f"'{word}'" for word in ["env", *settings, *command.venv.command(*command.arguments)])


def peak_memories(commands: Sequence[Command], rounds: int) -> list[list[float]]:
    """Return for each Python command without arguments its peak resident memory in bytes, for each round.

    The kernel's own high-water mark, read by the program itself: what wait4() gives for a child is
    never less than its parent's memory.
    """
    peaks: dict[int, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for index, command in enumerate(commands):
            line = command.venv.run("-c", PEAK, **dict(command.environ))
            peaks[index].append(int(line.split("VmHWM:")[1].split()[0]) * 1024)
    return [peaks[index] for index in range(len(commands))]


def paired(values: Sequence[float], bases: Sequence[float]) -> tuple[float, float]:
    """Return the median of the values, and the base that gives it the median of the rounds' ratios."""
    value = statistics.median(values)
    return value, value / statistics.median(a / b for a, b in zip(values, bases))
