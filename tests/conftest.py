"""Fixtures that build real environments, each made once in a run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.consumers.harness import NativeCode
from support.environments import ROOT, MadeOnce, Venv, is_installed

import airflow_setproctitle_shim as shim


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the long tests first, so that at the end no process waits for the other's last one."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The titles that a test sets are no other test's, nor are the functions that it neutralises."""
    yield
    shim.finder.process_title = None
    if not shim.is_active():
        shim.finder.wrappers.clear()
        shim.finder.sync = None  # It would walk over all modules at each deactivate().


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that makes a directory by a function, once in a run however many processes run the tests.

    What one module calls "wheels" is not what another does.
    """
    base = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each of its processes a directory in a common one.
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    shared.mkdir(exist_ok=True)

    def make(name: str, into: Callable[[Path], object]) -> Path:
        directory = shared / f"{into.__module__}-{name}"
        done = directory.with_suffix(".done")
        with FileLock(f"{directory}.lock"):
            if not done.exists():
                # A failed attempt may have left something.
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir()
                into(directory)
                done.touch()
        return directory

    return make


@pytest.fixture(scope="session")
def wheel(made_once: MadeOnce) -> Path:
    """The package's wheel, built from this checkout."""
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"

    def into(directory: Path) -> None:
        subprocess.run([sys.executable, "-c", build, str(directory)], cwd=ROOT, check=True)

    return next(made_once("wheel", into).glob("*.whl"))


@pytest.fixture(scope="session")
def make_venv(made_once: MadeOnce, wheel: Path) -> Callable[..., Venv]:
    """Return a function that gives an environment with the shim, simulated macOS and `requirements`.

    Who asks for the same gets the same environment, so nobody may change it; `own` names another one.
    What is installed beside the tests is copied; uv gets the rest, for the slow suite.
    """

    def make(
        *requirements: str,
        exclude_newer: str | None = None,
        macos: bool = True,
        extra: str = "",
        own: str = "",
    ) -> Venv:
        if "setproctitle" in requirements and sys.implementation.name == "pypy":
            pytest.skip("setproctitle has no wheels for PyPy")

        def into(directory: Path) -> None:
            venv = Venv.make(directory / "venv")
            if exclude_newer or not all(map(is_installed, requirements)):
                era = ["--exclude-newer", exclude_newer] if exclude_newer else []
                if requirements:
                    venv.install(*era, *requirements)
                venv.install(f"{wheel}[{extra}]" if extra else str(wheel))
            else:
                venv.unpack(wheel, extra)
                venv.copy(*requirements)
            if macos:
                venv.simulate_macos()

        what = repr((requirements, exclude_newer, macos, extra, own))
        return Venv(
            made_once(f"venv-{hashlib.sha256(what.encode()).hexdigest()[:16]}", into) / "venv"
        )

    return make


@pytest.fixture
def fresh_venv(tmp_path: Path, wheel: Path) -> Venv:
    """An environment with the shim and simulated macOS that the test may change."""
    venv = Venv.make(tmp_path / "venv")
    venv.unpack(wheel)
    venv.simulate_macos()
    return venv


@pytest.fixture(scope="session")
def macos_code(tmp_path_factory: pytest.TempPathFactory) -> NativeCode:
    """setproctitle's and processtitle's macOS code; on a Mac that is what is installed."""
    if sys.platform == "darwin":
        return NativeCode("setproctitle on macOS", None, tells=False)
    if (os.uname().sysname, os.uname().machine) != ("Linux", "x86_64"):
        pytest.skip("the macOS code is loaded on x86_64 Linux only")
    pytest.importorskip("lief", reason="needs the dependency group macos-code")
    from support.macos_code import native

    directory = tmp_path_factory.mktemp("macos-code")
    release = native.both("{}.{}".format(*sys.version_info), directory)
    return NativeCode(f"macOS code of {release.replace('==', ' ')}", directory, tells=True)
