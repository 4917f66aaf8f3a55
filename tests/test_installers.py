"""Whatever installs the package, site finds its startup files; they are owned, and leave with it."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from compatibility import page
from environments import ROOT, STARTUP_FILE, MadeOnce, Venv, clean_environ, uv, wheels_of

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
    installer: str  # with its version
    uninstall: Callable[[], object]


def by_pip(version: str) -> Callable[[Source, Path], Installed]:
    def install(source: Source, directory: Path) -> Installed:
        venv = Venv.make(directory / "venv")
        venv.install(version)
        venv.run("-m", "pip", "install", "-q", str(source.wheel))
        return Installed(venv, _pip_version(venv), lambda: _pip_uninstall(venv))

    return install


def _pip_version(venv: Venv) -> str:
    return " ".join(venv.run("-m", "pip", "--version").stdout.split()[:2])


def _pip_uninstall(venv: Venv) -> None:
    venv.run("-m", "pip", "uninstall", "-q", "-y", NAME)


def _uv_version() -> str:
    return " ".join(uv("--version").split()[:2])


def _uv_uninstall(venv: Venv) -> None:
    uv("pip", "uninstall", "--quiet", "--python", str(venv.python), NAME)


def by_uv(source: Source, directory: Path) -> Installed:
    venv = Venv.make(directory / "venv")
    venv.install(str(source.wheel))
    return Installed(venv, _uv_version(), lambda: _uv_uninstall(venv))


def from_sdist(source: Source, directory: Path) -> Installed:
    venv = Venv.make(directory / "venv")
    venv.install(str(source.sdist))
    return Installed(venv, _uv_version(), lambda: _uv_uninstall(venv))


def editable_by_uv(source: Source, directory: Path) -> Installed:
    venv = Venv.make(directory / "venv")
    venv.install("-e", str(_checkout(source, directory)))
    return Installed(venv, _uv_version(), lambda: _uv_uninstall(venv))


def editable_by_pip(source: Source, directory: Path) -> Installed:
    venv = Venv.make(directory / "venv")
    venv.install("pip")
    venv.run("-m", "pip", "install", "-q", "-e", str(_checkout(source, directory)))
    return Installed(venv, _pip_version(venv), lambda: _pip_uninstall(venv))


def _checkout(source: Source, directory: Path) -> Path:
    """Return a copy of the source tree, as the one at hand must not be built in."""
    with tarfile.open(source.sdist) as archive:
        archive.extractall(directory / "checkout", filter="data")
    return next((directory / "checkout").iterdir())


def by_uv_tool(source: Source, directory: Path) -> Installed:
    environ = clean_environ(UV_TOOL_DIR=str(directory / "tools"), UV_TOOL_BIN_DIR=str(directory / "bin"))
    uv(
        "tool",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        "gunicorn",
        "--with",
        str(source.wheel),
        env=environ,
    )
    install_alone = ["tool", "install", "--quiet", "--python", sys.executable, "--reinstall", "gunicorn"]
    venv = Venv(directory / "tools/gunicorn")
    return Installed(venv, _uv_version(), lambda: uv(*install_alone, env=environ))


def by_pipx(source: Source, directory: Path) -> Installed:
    environ = clean_environ(
        PIPX_HOME=str(directory), PIPX_BIN_DIR=str(directory / "bin"), PIPX_DEFAULT_PYTHON=sys.executable
    )

    def pipx(*arguments: str) -> str:
        return uv("tool", "run", "pipx", *arguments, env=environ)

    pipx("install", "-q", "gunicorn")
    pipx("inject", "-q", "gunicorn", str(source.wheel))
    venv = Venv(directory / "venvs/gunicorn")
    return Installed(venv, f"pipx {pipx('--version').strip()}", lambda: pipx("uninject", "gunicorn", NAME))


PROJECT = '[project]\nname = "app"\nversion = "1"\nrequires-python = ">={0}.{1},<{0}.{2}"\n'.format(
    *sys.version_info[:2], sys.version_info[1] + 1
)


def by_poetry(source: Source, directory: Path) -> Installed:
    (directory / "pyproject.toml").write_text(PROJECT)
    environ = clean_environ(POETRY_VIRTUALENVS_IN_PROJECT="true")

    def poetry(*arguments: str) -> str:
        return uv("tool", "run", "poetry", *arguments, cwd=directory, env=environ)

    # By path, the requirements too: Poetry knows nothing of pip's and uv's configured indexes.
    poetry("add", *map(str, source.wheels.glob("*.whl")))
    version = poetry("--version").replace("(version ", "").strip(")\n")
    return Installed(Venv(directory / ".venv"), version, lambda: poetry("remove", NAME))


def by_pdm(source: Source, directory: Path) -> Installed:
    find_links = (
        f'[[tool.pdm.source]]\nname = "pypi"\ntype = "find_links"\nurl = "{source.wheels.as_uri()}"\n'
    )
    (directory / "pyproject.toml").write_text(PROJECT + find_links)

    def pdm(*arguments: str) -> str:
        # Of its era: later releases of its requirement hishel break it.
        command = ["tool", "run", "--python", sys.executable, "--exclude-newer", "2026-03-01", "pdm"]
        return uv(*command, *arguments, cwd=directory, env=clean_environ())

    pdm("add", "--no-self", NAME)
    version = pdm("--version").replace(", version", "").strip()
    return Installed(Venv(directory / ".venv"), version, lambda: pdm("remove", "--no-self", NAME))


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
    return Installed(user, _pip_version(user), lambda: _pip_uninstall(user))


SLOW = pytest.mark.slow
INSTALLERS = [
    pytest.param(by_uv, id="uv pip"),
    pytest.param(by_pip("pip"), id="pip, newest", marks=SLOW),
    pytest.param(by_pip("pip==21.0.1"), id="pip 21.0", marks=SLOW),
    pytest.param(by_pip("pip==21.3.1"), id="pip 21.3", marks=SLOW),
    pytest.param(from_sdist, id="uv pip, from the sdist", marks=SLOW),
    pytest.param(editable_by_uv, id="uv pip, editable", marks=SLOW),
    pytest.param(editable_by_pip, id="pip, editable", marks=SLOW),
    pytest.param(by_pip_user, id="pip --user", marks=SLOW),
    pytest.param(by_uv_tool, id="uv tool", marks=SLOW),
    pytest.param(by_pipx, id="pipx", marks=SLOW),
    pytest.param(by_poetry, id="Poetry", marks=SLOW),
    pytest.param(by_pdm, id="PDM", marks=SLOW),
]


@pytest.mark.parametrize("install", INSTALLERS)
def test_the_startup_file_is_in_place_owned_at_work_and_gone_afterwards(
    install: Callable[[Source, Path], Installed],
    source: Source,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    installed = install(source, tmp_path)
    way = request.node.callspec.id
    page.add("installers", way, [installed.installer, "FAIL"])
    venv = installed.venv
    assert (venv.site_packages / STARTUP_FILE).is_file()
    assert owned(venv.site_packages) == {STARTUP_FILE}
    venv.simulate_macos()
    assert venv.evaluate(WHO).endswith("replacement.py")

    installed.uninstall()
    assert not list(venv.site_packages.glob("*airflow_setproctitle_shim*"))
    assert venv.run("-c", "pass").stderr == ""
    page.add("installers", way, [installed.installer, "ok"])


def owned(site_packages: Path) -> set[str]:
    """The startup files that the distribution's RECORD names."""
    [record] = site_packages.glob("airflow_setproctitle_shim-*.dist-info/RECORD")
    return {line.partition(",")[0] for line in record.read_text().splitlines()} & {STARTUP_FILE}


def test_an_upgrade_replaces_the_older_version_completely(source: Source, tmp_path: Path) -> None:
    older = _checkout(source, tmp_path)
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


@pytest.mark.slow
@pytest.mark.parametrize("first", ["pip", "uv"])
def test_one_installer_reinstalls_what_another_installed_and_uninstall_leaves_nothing(
    first: str, source: Source, tmp_path: Path
) -> None:
    venv = Venv.make(tmp_path / "venv")
    venv.install("pip")
    wheel = str(source.wheel)

    def pip() -> None:
        venv.run("-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", wheel)

    def by_uv() -> None:
        venv.install("--reinstall", "--no-deps", wheel)

    steps: dict[str, list[Callable[[], None]]] = {
        "pip": [pip, by_uv, lambda: _pip_uninstall(venv)],
        "uv": [by_uv, pip, lambda: _uv_uninstall(venv)],
    }
    for step in steps[first]:
        step()
        if step in (pip, by_uv):
            assert (venv.site_packages / STARTUP_FILE).exists()
            assert owned(venv.site_packages) == {STARTUP_FILE}
        else:
            assert not list(venv.site_packages.glob("*airflow_setproctitle_shim*"))


def test_a_target_directory_has_the_files_but_site_reads_none_until_activate(
    source: Source, fresh_venv: Venv, tmp_path: Path
) -> None:
    _uv_uninstall(fresh_venv)
    target = tmp_path / "target"
    uv("pip", "install", "--quiet", "--target", str(target), str(source.wheel), "setproctitle")
    assert owned(target) == {STARTUP_FILE}
    path = {"PYTHONPATH": str(target)}
    assert not fresh_venv.evaluate(WHO, **path).endswith("replacement.py")
    activate = "import airflow_setproctitle_shim as shim; shim.activate(); "
    assert fresh_venv.evaluate(activate + WHO, **path).endswith("replacement.py")


TOOLS = [
    pytest.param(["check-wheel-contents", "WHEEL"], id="check-wheel-contents"),
    pytest.param(["twine", "check", "--strict", "WHEEL", "SDIST"], id="twine"),
    pytest.param(["validate-pyproject", "PYPROJECT"], id="validate-pyproject"),
]


@pytest.mark.slow
@pytest.mark.parametrize("command", TOOLS)
def test_the_packages_and_their_declaration_satisfy_the_checkers(command: list[str], source: Source) -> None:
    files = {
        "WHEEL": str(source.wheel),
        "SDIST": str(source.sdist),
        "PYPROJECT": str(ROOT / "pyproject.toml"),
    }
    uv("tool", "run", *(files.get(word, word) for word in command), cwd=ROOT)
