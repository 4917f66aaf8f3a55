"""Fixtures that build real environments, each made once in a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from consumers.harness import NativeCode
from environments import ROOT, Venv, interpreter, uv
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's wheel, built from this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    uv("build", "--quiet", "--wheel", "--out-dir", str(directory), str(ROOT))
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="session")
def make_venv(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Callable[..., Venv]:
    """Return a function that gives an environment with the shim, simulated macOS and `requirements`."""
    made: dict[tuple[object, ...], Venv] = {}

    def make(
        *requirements: str,
        exclude_newer: str | None = None,
        macos: bool = True,
        python: str | None = None,
        extra: str = "",
    ) -> Venv:
        key = (*requirements, exclude_newer, macos, python, extra)
        if key not in made:
            venv = made[key] = Venv.make(
                tmp_path_factory.mktemp("venv") / "venv", *([interpreter(python)] if python else [])
            )
            era = ["--exclude-newer", exclude_newer] if exclude_newer else []
            if requirements:
                venv.install(*era, *requirements)
            venv.install(f"{wheel}[{extra}]" if extra else str(wheel))
            if macos:
                venv.simulate_macos()
        return made[key]

    return make


@pytest.fixture
def fresh_venv(tmp_path: Path, wheel: Path) -> Venv:
    """An environment with the shim and simulated macOS that the test may change."""
    venv = Venv.make(tmp_path / "venv")
    venv.install("--link-mode", "copy", str(wheel))
    venv.simulate_macos()
    return venv


@pytest.fixture(scope="session")
def macos_code(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., NativeCode]:
    """Return a function that gives setproctitle's and processtitle's macOS code for a Python like "3.11".

    On a Mac that is what is installed.
    """
    if sys.platform == "darwin":
        return lambda python=None: NativeCode("setproctitle on macOS", Path())
    if (os.uname().sysname, os.uname().machine) != ("Linux", "x86_64"):
        pytest.skip("the macOS code is loaded on x86_64 Linux only")
    pytest.importorskip("lief", reason="needs the dependency group macos-code")
    from macos_code import native, wheels

    made: dict[str, NativeCode] = {}

    def make(python: str | None = None) -> NativeCode:
        version = python or "{}.{}".format(*sys.version_info)
        if version not in made:
            directory = tmp_path_factory.mktemp("macos-code")
            try:
                release = native.both(version, directory)
            except wheels.Unreachable as error:
                pytest.skip(f"the package index gave no wheel: {error}")
            made[version] = NativeCode(f"macOS code of {release.replace('==', ' ')}", directory)
        return made[version]

    return make
