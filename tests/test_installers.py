"""Whatever installs the package, site finds its startup file; it is owned, and leaves with it.

For pipx, `uv tool` and Poetry see test_project_files.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import mac
from support.environments import ROOT, STARTUP_FILE, MadeOnce, Venv, uv

pytestmark = pytest.mark.slow

NAME = "airflow-setproctitle-shim"
WHO = "import setproctitle; print(setproctitle.__file__)"


@pytest.fixture(scope="session")
def sdist(made_once: MadeOnce) -> Path:
    build = ["build", "--quiet", "--sdist", "--out-dir"]
    return next(made_once("sdist", lambda into: uv(*build, str(into), str(ROOT))).glob("*.tar.gz"))


def checkout(sdist: Path, directory: Path) -> Path:
    """Return a copy of the source tree, as the one at hand must not be built in."""
    copy = directory / "checkout"
    copy.mkdir()
    subprocess.run(["tar", "-xf", str(sdist), "-C", str(copy), "--strip-components=1"], check=True)
    return copy


class UserSite(Venv):
    """The user site of the Python that the tests' environment was made from, in a directory of its own."""

    @property
    def command(self) -> list[str]:
        # Debian's Python guards its user site too.
        settings = [f"PYTHONUSERBASE={self.path}", "PIP_BREAK_SYSTEM_PACKAGES=1"]
        return ["env", *settings, str(Path(sys.base_prefix, "bin", "python3"))]


def pip(tool: str, venv: Venv, command: str, *arguments: str) -> None:
    """Run a command of uv's pip, or of the environment's own."""
    if tool == "uv":
        uv("pip", command, "--quiet", "--python", str(venv.python), *arguments)
    else:
        option = {("--user", "install"): ["--user"], (tool, "uninstall"): ["-y"]}.get(
            (tool, command), []
        )
        venv.run("-m", "pip", command, "-q", *option, *arguments)


@pytest.mark.parametrize(
    ("tool", "what"),
    [
        ("uv", "the wheel"),
        ("uv", "the sdist"),
        ("uv", "editable"),
        ("pip", "the wheel"),
        ("pip==21.0.1", "the wheel"),
        ("pip", "editable"),
        ("--user", "the wheel"),
    ],
)
def test_the_startup_file_is_in_place_owned_at_work_and_gone_afterwards(
    tool: str, what: str, wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    venv = UserSite(tmp_path) if tool == "--user" else Venv.make(tmp_path / "venv")
    if tool.startswith("pip"):
        venv.install(tool)
    if what == "editable":
        pip(tool, venv, "install", "-e", str(checkout(sdist, tmp_path)))
    else:
        pip(tool, venv, "install", str(wheel if what == "the wheel" else sdist))
    assert (venv.site_packages / STARTUP_FILE).is_file()
    assert owned(venv.site_packages) == {STARTUP_FILE}
    venv.simulate_macos()
    assert venv.evaluate(WHO).endswith("replacement.py")

    mac.leave(venv.site_packages)  # A Mac's pip asks the system for its version.
    pip(tool, venv, "uninstall", NAME)
    assert not list(venv.site_packages.glob("*airflow_setproctitle_shim*"))
    assert venv.run("-c", "pass").stderr == ""


def owned(site_packages: Path) -> set[str]:
    """The startup files that the distribution's RECORD names."""
    [record] = site_packages.glob("airflow_setproctitle_shim-*.dist-info/RECORD")
    return {line.partition(",")[0] for line in record.read_text().splitlines()} & {STARTUP_FILE}


def test_an_upgrade_replaces_the_older_version_completely(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    older = checkout(sdist, tmp_path)
    module = older / "src/airflow_setproctitle_shim/__init__.py"
    text = module.read_text()
    version = text.partition('__version__ = "')[2].partition('"')[0]
    module.write_text(text.replace(f'"{version}"', '"0.0.1"'))
    (older / "src/airflow_setproctitle_shim/gone.py").touch()
    (older / "src/airflow_setproctitle_shim.pth").write_text(
        "raise SystemExit('the old startup file runs')"
    )
    venv = Venv.make(tmp_path / "venv")
    venv.install(str(older))
    assert (venv.site_packages / "airflow_setproctitle_shim/gone.py").exists()
    venv.install("--link-mode", "copy", str(wheel))
    venv.simulate_macos()
    assert venv.evaluate(WHO).endswith("replacement.py")
    assert not (venv.site_packages / "airflow_setproctitle_shim/gone.py").exists()
    found = venv.evaluate(f"from importlib.metadata import version; print(version({NAME!r}))")
    assert found == version
