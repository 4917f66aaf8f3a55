"""Fixtures that build real environments, each made once in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
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
