"""Finds the Pythons of this machine, has a Debian sid made for the newest, and builds environments in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from environments import UV, Venv, clean_environ, pyenv_pythons, uv

WANTED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.13t", "3.14t", "PyPy 3")
REQUIRED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.15")
# A sid is for tests only, and a mirror that stands still has expired Release files before long.
APT_GET = ("apt-get", "-q", "-y", "-o", "Acquire::Check-Valid-Until=false")
DEBIAN_PACKAGES = ("python3.14", "python3.15", "python3-setproctitle")

FACTS = """
import json, platform, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(),
    "short": "%d.%d" % sys.version_info[:2],
    "implementation": platform.python_implementation(),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter: one of WANTED, its full version, where it is, and below which root directory."""

    name: str
    version: str
    path: str
    root: Path = Path("/")

    @property
    def prefix(self) -> list[str]:
        """What stands in front of a command that runs below the root."""
        return [] if self.root == Path("/") else ["chroot", str(self.root)]


@dataclass(frozen=True)
class RootedVenv(Venv):
    """A virtual environment below another root directory; `path` is as seen from outside."""

    root: Path

    @property
    def command(self) -> list[str]:
        return ["chroot", str(self.root), inside(self.root, self.python)]


def inside(root: Path, path: Path) -> str:
    """Return `path` as a process below `root` sees it."""
    return "/" + str(path.relative_to(root))


def found(root: Path) -> list[Python]:
    """Return the Pythons of this machine and of the Debian in `root`, in the order of WANTED."""
    pythons: dict[str, Python] = {}
    for base, path in [*_of_this_machine(), *((root, f"/usr/bin/python3.{n}") for n in (14, 15))]:
        python = _examined(base, path)
        if python is not None:
            pythons.setdefault(python.name, python)
    return [pythons[name] for name in WANTED if name in pythons]


def _of_this_machine() -> Iterator[tuple[Path, str]]:
    """Yield every interpreter that pyenv or PATH has, whether it works or not."""
    for path in pyenv_pythons("*"):
        yield Path("/"), path
    for name in [*(f"python{wanted}" for wanted in WANTED), "pypy3"]:
        program = shutil.which(name)
        if program:
            yield Path("/"), program


def _examined(root: Path, path: str) -> Python | None:
    """Return the Python with its facts, or None if it does not run or is not wanted."""
    prefix = Python("", "", path, root).prefix
    if not (root / path.lstrip("/")).exists():
        return None
    done = subprocess.run(
        [*prefix, path, "-c", FACTS], capture_output=True, text=True, check=False, env=clean_environ()
    )
    if done.returncode:
        return None
    facts = json.loads(done.stdout)
    name = "PyPy 3" if facts["implementation"] == "PyPy" else facts["short"] + "t" * facts["free_threaded"]
    return Python(name, facts["version"], path, root) if name in WANTED else None


def debian(root: Path) -> str | None:
    """Make a Debian sid with the newest Pythons in `root` if it is not there; return why it cannot be had."""
    if os.geteuid():
        return "only root can make and enter a Debian sid"
    if not (root / "usr/bin/python3.15").exists():
        if not shutil.which("debootstrap"):
            return "debootstrap is not installed"
        packages = ",".join(DEBIAN_PACKAGES)
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={packages}",
            "sid",
            str(root),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"debootstrap failed: {done.stdout[-300:]}"
    elif not (root / "usr/lib/python3/dist-packages/setproctitle").exists():
        for action in (["update"], ["install", *DEBIAN_PACKAGES]):
            done = subprocess.run(
                ["chroot", str(root), *APT_GET, *action], capture_output=True, text=True, check=False
            )
            if done.returncode:
                return f"apt-get {action[0]} failed: {done.stderr[-300:]}"
    return None


def venv_of(python: Python, directory: Path, requirements: list[str]) -> Venv:
    """Return a new environment with the requirements installed. `directory` is below the Python's root.

    In another root there is no network: next to `directory` must be what stock() puts there, and
    that system's own setproctitle is used.
    """
    if not python.prefix:
        venv = Venv.make(directory, python.path)
        venv.install("--link-mode", "copy", "--only-binary", ":all:", *requirements)
        return venv
    stocked = inside(python.root, directory.parent)
    command = [*python.prefix, f"{stocked}/uv", "--quiet", "--offline", "--no-cache", "--no-config"]
    place = inside(python.root, directory)
    _run([*command, "venv", "--system-site-packages", "--python", python.path, place])
    own = [requirement for requirement in requirements if not requirement.startswith("setproctitle")]
    offline = ["--no-index", "--find-links", f"{stocked}/wheels", "--python", f"{place}/bin/python"]
    _run([*command, "pip", "install", *offline, *own])
    return RootedVenv(directory, python.root)


def stock(directory: Path, requirements: list[str]) -> None:
    """Put uv and wheels of the requirements, for every Python, into a directory below another root."""
    assert UV
    shutil.copy(UV, directory / "uv")
    for number in ("3.14", "3.15"):
        wheels = ["--quiet", "--only-binary", ":all:", "--python-version", number, "--dest", "wheels"]
        uv("tool", "run", "pip", "download", *wheels, *requirements, cwd=directory)


def _run(command: list[str]) -> None:
    """Run the command; raises AssertionError with what it printed if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environ())
    assert not done.returncode, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
