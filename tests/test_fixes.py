"""What keeps the shim off is told by `status`, and its lines, run as they are printed, turn the shim on.

Each state is made in an environment that plays a Mac, in a directory whose name needs quoting. The lines
are run by zsh, a Mac's shell, or by sh where that is missing. pip installs from a directory of wheels.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import mac
from support.environments import (
    STAND_IN,
    SWITCH,
    MadeOnce,
    Venv,
    clean_environ,
    distribution,
    installed,
    write,
)

SHIM, OURS = "airflow_setproctitle_shim", "airflow-setproctitle-shim"
STARTUP_FILE = f"{SHIM}.pth"
Variables = dict[str, str]
SYSTEM = "/usr/bin/python3"


@pytest.fixture(scope="session")
def wheels(made_once: MadeOnce, wheel: Path) -> Path:
    """A directory of wheels: ours, what it requires, and a billiard, for pip without a network."""

    def into(directory: Path) -> None:
        shutil.copy(wheel, directory)
        for dist in installed("importlib-metadata", "wrapt"):
            tag = str(dist.read_text("WHEEL")).partition("Tag: ")[2].split()[0]
            name = f"{dist.metadata['Name'].replace('-', '_')}-{dist.version}-{tag}.whl"
            with zipfile.ZipFile(directory / name, "w") as archive:
                for file in dist.files or ():
                    if ".." not in file.parts and not str(file).endswith(".pyc"):
                        archive.write(str(dist.locate_file(file)), str(file))
        for name, version in (
            ("billiard", "4.2.4"),
            ("billiard", "4.3.2"),
            ("processtitle", "1.3"),
        ):
            metadata = f"{name}-{version}.dist-info"
            with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
                archive.writestr(f"{name}.py", "prepare = set_to = lambda *_, **__: None\n")
                head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                archive.writestr(f"{metadata}/METADATA", head)
                tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                archive.writestr(f"{metadata}/WHEEL", tags)
                archive.writestr(f"{metadata}/RECORD", "")

    return made_once("wheels", into)


class Place:
    """An environment in a state, where status is asked and its lines are run."""

    def __init__(self, venv: Venv, wheels: Path) -> None:
        self.venv, self.site = venv, venv.site_packages
        self.python = [str(venv.python)]
        self.home = venv.path.parent / "ho'me"
        self.home.mkdir()
        self.variables = {
            "HOME": str(self.home),
            "PATH": os.pathsep.join([str(self.home / "bin"), os.environ["PATH"]]),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": wheels.as_uri(),
            "PIP_NO_INDEX": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    def status(self) -> Any:
        """What status says, as JSON."""
        done = subprocess.run(
            [*self.python, "-m", SHIM, "status", "--json"],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=clean_environ(**self.variables),
        )
        data = json.loads(done.stdout)
        assert done.returncode == int(not data["ok"])
        return data

    def after(self, *lines: str) -> Any:
        """What status says in a shell in which the lines were run; no pip runs while it sees a Mac."""
        shell = shutil.which("zsh") or "sh"
        startup_file = self.site / mac.STARTUP_FILE
        kept = startup_file.rename(self.home / mac.STARTUP_FILE)
        again = f"mv {shlex.quote(str(kept))} {shlex.quote(str(startup_file))}"
        ask = f"{shlex.join(self.python)} -m {SHIM} status --json"
        done = subprocess.run(
            [shell, "-c", "\n".join(["set -e", "{", *lines, "} >&2", again, f"{ask} || true"])],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=clean_environ(**self.variables),
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def place(tmp_path: Path, wheel: Path, wheels: Path) -> Place:
    """An environment with the shim and pip that plays a Mac."""
    venv = Venv.make(tmp_path / "it's here" / "venv")
    venv.unpack(wheel)
    venv.simulate_macos()
    # pip is where the tests have it: a copy would take longer than all that it does here.
    [pip] = installed("pip")
    place = Place(venv, wheels)
    tools = place.home / "pip"
    tools.mkdir()
    (tools / "pip").symlink_to(str(pip.locate_file("pip")))
    write(place.site / "pip_of_the_tests.pth", f"{tools}\n")
    return place


def remove(place: Place, *names: str) -> None:
    """Delete packages and their metadata."""
    for name in names:
        for found in place.site.glob(f"{name}*"):
            shutil.rmtree(found) if found.is_dir() else found.unlink()


def missing(place: Place) -> None:
    (place.site / STARTUP_FILE).unlink()


def empty(place: Place) -> None:
    write(place.site / STARTUP_FILE, "")


def edited(place: Place) -> None:
    write(place.site / STARTUP_FILE, f"# import {SHIM}\n")


def not_installed(place: Place) -> None:
    remove(place, f"{SHIM}-", STARTUP_FILE)


def elsewhere(place: Place) -> Path:
    """Put the shim where `pip install --target` does."""
    target = place.home / "tar get"
    target.mkdir()
    for name in (SHIM, STARTUP_FILE, next(place.site.glob(f"{SHIM}-*")).name):
        (place.site / name).rename(target / name)
    place.variables["PYTHONPATH"] = str(target)
    return target


def elsewhere_with_a_sitecustomize(place: Place) -> None:
    write(elsewhere(place) / "sitecustomize.py", "first = 1  # no line break follows")


def in_an_archive(place: Place) -> None:
    target = elsewhere(place)
    shutil.make_archive(str(target), "zip", target)
    shutil.rmtree(target)
    place.variables["PYTHONPATH"] = f"{target}.zip"


def hidden(place: Place) -> None:
    """Play the flag, that site passes over files with it, and the command that takes it away."""
    write(place.home / "hidden", "")
    marker = str(place.home / "hidden")
    played = f"""
import os, pathlib, site, stat, types
ours = {STARTUP_FILE!r}
def as_on_a_mac(real):
    def lstat(path, *args, **named):
        if os.path.basename(path) == ours and os.path.exists({marker!r}):
            return types.SimpleNamespace(st_flags=stat.UF_HIDDEN)
        return real(path, *args, **named)
    return lstat
os.lstat, pathlib.Path.lstat = as_on_a_mac(os.lstat), as_on_a_mac(pathlib.Path.lstat)
if "UF_HIDDEN" not in open(site.__file__, encoding="utf-8").read():  # an older Python
    def addpackage(*args, real=site.addpackage):
        return None if args[1] == ours and os.path.exists({marker!r}) else real(*args)
    site.addpackage = addpackage
"""
    write(place.site / "hides.py", played)
    write(place.site / "aab_hides.pth", "import hides\n")
    tree = shlex.quote(str(place.venv.path))
    chflags = f'#!/bin/sh\n[ "$*" = "-R nohidden "{tree} ] && rm {shlex.quote(marker)}\n'
    write(place.home / "bin/chflags", chflags).chmod(0o755)


def hidden_behind_a_sitecustomize(place: Place) -> None:
    hidden(place)
    other = place.home / "of the base"
    write(other / "sitecustomize.py", "import sys; sys.theirs = True\n")
    place.variables["PYTHONPATH"] = str(other)


def native_first(place: Place) -> None:
    """Have a native setproctitle imported by a startup file that sorts before ours."""
    shutil.copytree(STAND_IN / "setproctitle", place.site / "setproctitle")
    write(place.site / "aab_imports_it.pth", "import setproctitle\n")


def native_first_and_no_wrapt(place: Place) -> None:
    native_first(place)
    remove(place, "wrapt")


def native_first_and_a_broken_wrapt(place: Place) -> None:
    native_first(place)
    write(place.site / "wrapt/__init__.py", "1 / 0\n")


def no_importlib_metadata(place: Place) -> None:
    remove(place, "importlib_metadata")


def no_dependency_of_importlib_metadata(place: Place) -> None:
    remove(place, "zipp", "lazy_importer")


def a_broken_importlib_metadata(place: Place) -> None:
    write(place.site / "importlib_metadata/__init__.py", "1 / 0\n")


def no_titles(place: Place) -> None:
    place.variables[SWITCH] = "titles"


def switched_off(place: Place) -> None:
    place.variables[SWITCH] = "Off"


def celery_beside_a_new_billiard(place: Place) -> None:
    distribution(place.site, "celery", {}, "5.6.3", "billiard<5.0,>=4.2.1")
    distribution(place.site, "billiard", {}, "4.3.2")


class State(NamedTuple):
    make: Callable[[Place], object]
    says: str
    lines: slice = slice(None)  # which of the lines are run


STATES = [
    State(missing, "the startup file is missing"),
    State(empty, "the startup file is empty"),
    State(edited, "the startup file was edited"),
    State(not_installed, "can be imported, but is not installed"),
    State(elsewhere, "lies where Python does not look for one"),
    State(elsewhere_with_a_sitecustomize, "lies where Python does not look for one"),
    State(in_an_archive, "lies where Python does not look for one"),
    State(hidden, "macOS hides the startup file", lines=slice(1)),
    State(hidden, "macOS hides the startup file", lines=slice(1, None)),
    State(hidden_behind_a_sitecustomize, "macOS hides", lines=slice(1, None)),
    State(native_first_and_no_wrapt, "No module named 'wrapt'"),
    State(native_first_and_a_broken_wrapt, "wrapt, which makes it harmless, is broken (ZeroDiv"),
    State(no_importlib_metadata, "importlib_metadata is broken (ModuleNotFoundError"),
    State(no_dependency_of_importlib_metadata, "importlib_metadata is broken (ModuleNotFoundError"),
    State(a_broken_importlib_metadata, "importlib_metadata is broken (ZeroDivisionError"),
    State(no_titles, "no titles are shown: processtitle"),
    State(celery_beside_a_new_billiard, "not enough values to unpack (expected 3, got 0)"),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.make.__name__)
def test_a_state_is_told_and_its_lines_mend_it(state: State, place: Place) -> None:
    state.make(place)
    told = place.status()
    assert not told["ok"] and state.says in told["says"]
    lines = told["fixes"][state.lines]
    assert lines
    after = place.after(*lines)
    assert after["ok"] and after["on"] and after["says"].startswith("ON: setproctitle is safe")
