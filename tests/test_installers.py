"""Whatever installs the package, site finds its startup file; it is owned, and leaves with it.

For pipx, `uv tool` and Poetry see test_project_files.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import ROOT, STARTUP_FILE, MadeOnce, Venv, uv, wheels_of

pytestmark = [pytest.mark.slow, pytest.mark.network]

NAME = "airflow-setproctitle-shim"
WHO = "import setproctitle; print(setproctitle.__file__)"


@dataclass(frozen=True)
class Source:
    """What can be installed: the wheel, the sdist, and a directory with the wheel and those of its requirements."""

    wheel: Path
    made_once: MadeOnce

    @property
    def sdist(self) -> Path:
        directory = self.made_once(
            "sdist", lambda into: uv("build", "--quiet", "--sdist", "--out-dir", str(into), str(ROOT))
        )
        return next(directory.glob("*.tar.gz"))

    @property
    def wheels(self) -> Path:
        return wheels_of(self.wheel, self.made_once)


@pytest.fixture(scope="session")
def source(wheel: Path, made_once: MadeOnce) -> Source:
    return Source(wheel, made_once)


@dataclass
class Installed:
    """Where an installer has put the package, and how it takes it away again."""

    venv: Venv
    uninstall: Callable[[], object]


# What to install, from a source and with a directory at hand.
What = Callable[[Source, Path], list[str]]


def from_wheel(source: Source, _: Path) -> list[str]:
    return [str(source.wheel)]


def from_sdist(source: Source, _: Path) -> list[str]:
    return [str(source.sdist)]


def editable(source: Source, directory: Path) -> list[str]:
    return ["-e", str(checkout(source, directory))]


def checkout(source: Source, directory: Path) -> Path:
    """Return a copy of the source tree, as the one at hand must not be built in."""
    copy = directory / "checkout"
    copy.mkdir()
    subprocess.run(["tar", "-xf", str(source.sdist), "-C", str(copy), "--strip-components=1"], check=True)
    return copy


def by_pip(version: str, what: What) -> Callable[[Source, Path], Installed]:
    def install(source: Source, directory: Path) -> Installed:
        venv = Venv.make(directory / "venv")
        venv.install(version)
        venv.run("-m", "pip", "install", "-q", *what(source, directory))
        return Installed(venv, lambda: venv.run("-m", "pip", "uninstall", "-q", "-y", NAME))

    return install


def by_uv(what: What) -> Callable[[Source, Path], Installed]:
    def install(source: Source, directory: Path) -> Installed:
        venv = Venv.make(directory / "venv")
        venv.install(*what(source, directory))
        return Installed(venv, lambda: uv("pip", "uninstall", "-q", "--python", str(venv.python), NAME))

    return install


class UserSite(Venv):
    """The user site of the Python that the tests' environment was made from, in a directory of its own."""

    @property
    def command(self) -> list[str]:
        # Debian's Python guards its user site too.
        settings = [f"PYTHONUSERBASE={self.path}", "PIP_BREAK_SYSTEM_PACKAGES=1"]
        return ["env", *settings, str(Path(sys.base_prefix, "bin", "python3"))]


def by_pip_user(source: Source, directory: Path) -> Installed:
    user = UserSite(directory)
    user.run("-m", "pip", "install", "-q", "--user", str(source.wheel))
    return Installed(user, lambda: user.run("-m", "pip", "uninstall", "-q", "-y", NAME))


INSTALLERS = [
    pytest.param(by_uv(from_wheel), id="uv pip"),
    pytest.param(by_uv(from_sdist), id="uv pip, from the sdist"),
    pytest.param(by_uv(editable), id="uv pip, editable"),
    pytest.param(by_pip("pip", from_wheel), id="pip, newest"),
    pytest.param(by_pip("pip==21.0.1", from_wheel), id="pip 21.0"),
    pytest.param(by_pip("pip", editable), id="pip, editable"),
    pytest.param(by_pip_user, id="pip --user"),
]


@pytest.mark.parametrize("install", INSTALLERS)
def test_the_startup_file_is_in_place_owned_at_work_and_gone_afterwards(
    install: Callable[[Source, Path], Installed], source: Source, tmp_path: Path
) -> None:
    installed = install(source, tmp_path)
    venv = installed.venv
    assert (venv.site_packages / STARTUP_FILE).is_file()
    assert owned(venv.site_packages) == {STARTUP_FILE}
    venv.simulate_macos()
    assert venv.evaluate(WHO).endswith("replacement.py")

    installed.uninstall()
    assert not list(venv.site_packages.glob("*airflow_setproctitle_shim*"))
    assert venv.run("-c", "pass").stderr == ""


def owned(site_packages: Path) -> set[str]:
    """The startup files that the distribution's RECORD names."""
    [record] = site_packages.glob("airflow_setproctitle_shim-*.dist-info/RECORD")
    return {line.partition(",")[0] for line in record.read_text().splitlines()} & {STARTUP_FILE}


def test_an_upgrade_replaces_the_older_version_completely(source: Source, tmp_path: Path) -> None:
    older = checkout(source, tmp_path)
    module = older / "src/airflow_setproctitle_shim/__init__.py"
    text = module.read_text()
    version = text.partition('__version__ = "')[2].partition('"')[0]
    module.write_text(text.replace(f'"{version}"', '"0.0.1"'))
    (older / "src/airflow_setproctitle_shim/gone.py").touch()
    (older / "src/airflow_setproctitle_shim.pth").write_text("raise SystemExit('the old startup file runs')")
    venv = Venv.make(tmp_path / "venv")
    venv.install(str(older))
    assert (venv.site_packages / "airflow_setproctitle_shim/gone.py").exists()
    venv.install("--link-mode", "copy", str(source.wheel))
    venv.simulate_macos()
    assert venv.evaluate(WHO).endswith("replacement.py")
    assert not (venv.site_packages / "airflow_setproctitle_shim/gone.py").exists()
    found = venv.evaluate(f"from importlib.metadata import version; print(version({NAME!r}))")
    assert found == version


def test_a_target_directory_has_the_files_but_site_reads_none_until_activate(
    source: Source, tmp_path: Path
) -> None:
    venv = Venv.make(tmp_path / "venv")
    venv.simulate_macos()
    target = tmp_path / "target"
    uv("pip", "install", "--quiet", "--target", str(target), str(source.wheel), "setproctitle")
    assert owned(target) == {STARTUP_FILE}
    path = {"PYTHONPATH": str(target)}
    assert not venv.evaluate(WHO, **path).endswith("replacement.py")
    activate = "import airflow_setproctitle_shim as shim; shim.activate(); "
    assert venv.evaluate(activate + WHO, **path).endswith("replacement.py")
