"""Real throw-away environments for tests: a virtual environment, and what is installed and run in it.

The fast suite needs no network and no installer of the machine: `venv` makes an environment, PyPA's
`installer` unpacks the wheel, and what is installed beside the tests is copied. uv is for the slow suite.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import installer
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from packaging.requirements import Requirement

from support import mac

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "src/airflow_setproctitle_shim/stand_in"
# What takes long to get or to make and is the same in every run. It may be emptied.
CACHE = Path(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "airflow-setproctitle-shim"
)
SWITCH = "AIRFLOW_SETPROCTITLE_SHIM"
STARTUP_FILE = "airflow_setproctitle_shim.pth"
UV = shutil.which(
    "uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)

# ddtrace sends nothing, and writes no report of each process that is to die.
DDTRACE = {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_CRASHTRACKING_ENABLED": "false"}


def clean_environ(**variables: str) -> dict[str, str]:
    """The environment without what would change how Python starts, and with `variables`."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("PYTHON", "AIRFLOW", "VIRTUAL_ENV"))
    }
    return {**kept, **variables}


@dataclass(frozen=True)
class Venv:
    """A virtual environment."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Venv:
        """Make an environment of the Python that runs the tests."""
        venv.EnvBuilder(symlinks=True).create(path)
        return cls(path)

    @property
    def python(self) -> Path:
        return self.path / "bin/python"

    @property
    def site_packages(self) -> Path:
        return next(self.path.glob("lib/*/site-packages"))

    @property
    def command(self) -> list[str]:
        """What starts this environment's Python."""
        return [str(self.python)]

    def install(self, *requirements: str) -> None:
        """Install by uv; options may stand among the requirements."""
        uv("pip", "install", "--quiet", "--python", str(self.python), *requirements)

    def unpack(self, wheel: Path, extra: str = "") -> None:
        """Install the wheel, with what it and its extra require from what is installed beside the tests."""
        scheme = {
            "purelib": self.site_packages,
            "platlib": self.site_packages,
            "scripts": self.path / "bin",
        }
        destination = SchemeDictionaryDestination(
            {name: str(path) for name, path in scheme.items()}, str(self.python), "posix"
        )
        with WheelFile.open(wheel) as source:
            installer.install(source, destination, {"INSTALLER": b"tests"})
        [own] = metadata.distributions(
            path=[str(self.site_packages)], name="airflow-setproctitle-shim"
        )
        self.copy(*required_by(own, extra))

    def copy(self, *requirements: str) -> None:
        """Copy distributions that are installed beside the tests, with all that they require.

        Raises importlib.metadata.PackageNotFoundError, before anything is copied.
        """
        for found in installed(*requirements):
            for file in found.files or ():
                source, target = Path(str(found.locate_file(file))), self.site_packages / file
                # Not copytree(), which would keep directories read-only.
                if ".." not in file.parts and source.is_file() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, target)

    def simulate_macos(self) -> None:
        """Make every process of this environment see macOS from its start to its end; see mac."""
        mac.play_in(self.site_packages)

    def run(
        self, *arguments: str, check: object = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run this environment's Python with the arguments and environment variables given.

        Raises AssertionError if `check` is true and it fails; an object, as mypy counts `**{...}` to it too.
        """
        done = subprocess.run(
            [*self.command, *arguments],
            check=False,
            env=clean_environ(**variables),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def evaluate(self, code: str, *arguments: str, **variables: str) -> str:
        """Run the code with the arguments; return what it printed, blanks stripped."""
        return self.run("-c", code, *arguments, check=True, **variables).stdout.strip()


def required_by(distribution: metadata.Distribution, extra: str = "") -> Iterator[str]:
    """Yield what the distribution requires here, with that extra of it."""
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield line


def installed(*requirements: str) -> list[metadata.Distribution]:
    """Return the distributions that fit the requirements, and all that those require.

    Raises importlib.metadata.PackageNotFoundError for what is not installed beside the tests.
    """
    found: dict[str, metadata.Distribution] = {}
    wanted = list(requirements)
    while wanted:
        requirement = Requirement(wanted.pop())
        distribution = metadata.distribution(requirement.name)
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            raise metadata.PackageNotFoundError(str(requirement))
        if requirement.name not in found:
            found[requirement.name] = distribution
            wanted += required_by(distribution)
    return list(found.values())


def is_installed(requirement: str) -> bool:
    """Whether a distribution beside the tests fits the requirement, and those that it requires do."""
    try:
        return bool(installed(requirement))
    except metadata.PackageNotFoundError:
        return False


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, with the directories that it needs; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def distribution(
    site: Path, name: str, files: dict[str, bytes], version: str = "1.0", requires: str = ""
) -> Path:
    """Install a distribution with these files by hand; return its metadata's directory."""
    for file, content in files.items():
        write(site / file, content)
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    write(
        metadata / "METADATA",
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{f'Requires-Dist: {requires}' * bool(requires)}\n",
    )
    write(metadata / "RECORD", "".join(f"{file},,\n" for file in files))
    return metadata


# Makes the directory of that name by the function, once in a run of the tests; returns it. See conftest.py.
MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def uv(*arguments: str, **options: Any) -> str:
    """Run uv and return what it printed; raises AssertionError with its complaints if it fails."""
    assert UV, "uv is missing: pip install uv"
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [UV, *arguments], check=False, capture_output=True, text=True, timeout=900, **options
    )
    if done.returncode:
        raise AssertionError(f"uv {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return done.stdout
