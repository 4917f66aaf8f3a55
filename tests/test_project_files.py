"""What docs/project-files.md and the README tell users to write into their projects' files works as it stands.

The package is not on the index while it is tested, so its wheel and those of its requirements are offered
to every tool beside the index. Each tool reads the line with the marker made true here, as a tool that did not
read it would keep the package away, too; what the marker says is a test of its own.
"""

from __future__ import annotations

import functools
import http.server
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.environments import ROOT, STARTUP_FILE, MadeOnce, Venv, clean_environ, uv

NAME = "airflow-setproctitle-shim"
PAGE = (ROOT / "docs/project-files.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
LINE = re.compile(rf"{NAME}; sys_platform == (?:\"darwin\"|'darwin')")
BEFORE, TRAP = "Before the first release", "The trap: locks made on Linux"
PIPX, FILES = "pipx and uv tool", "requirements.txt, pyproject.toml"
ADD = "uv, Poetry"
CLONE = "/path/to/the/clone"
WITH_MARKER = [
    (FILES, 0),
    (FILES, 1),
    (ADD, 0),
    ("tox, nox", 0),
    ("tox, nox", 1),
    ("conda", 0),
]


def block(section: str, number: int = 0) -> str:
    """A code block of a section of the page."""
    blocks: list[str] = re.findall(
        r"^```\w+\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL
    )
    return blocks[number]


def made_true(text: str) -> str:
    """The text with the marker changed so that it holds on the platform that runs the tests."""
    return re.sub(r"\bdarwin\b", sys.platform, text)


@pytest.mark.parametrize(("section", "number"), WITH_MARKER)
def test_the_line_is_a_requirement_that_holds_on_macos_only(section: str, number: int) -> None:
    requirement = Requirement(LINE.findall(block(section, number))[0])
    assert requirement.marker is not None
    holds = {
        name: requirement.marker.evaluate({"sys_platform": name})
        for name in ("darwin", "linux", "win32")
    }
    assert holds == {"darwin": True, "linux": False, "win32": False}


def test_the_readme_has_the_line_that_is_tested_here() -> None:
    assert f"`{block(FILES).strip()}`" in (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="session")
def wheels(wheel: Path, made_once: MadeOnce) -> Path:
    """A directory with the package's wheel and those of all it requires."""
    download = ["tool", "run", "pip", "download", "-q", "--only-binary", ":all:", "--dest"]
    return made_once("wheels", lambda into: uv(*download, str(into), str(wheel)))


@pytest.fixture
def project(wheels: Path, tmp_path: Path) -> Project:
    return Project(tmp_path, clean_environ(UV_FIND_LINKS=str(wheels), PIP_FIND_LINKS=str(wheels)))


class Project:
    """A user's project: a directory, and tools that find the wheels."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self.environ = {**environ, "UV_PYTHON": sys.executable}

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def uv(self, *arguments: str) -> str:
        return uv(*arguments, cwd=self.directory, env=self.environ)

    def pip(self, command: str, **variables: str) -> Venv:
        """Run a command of pip in the project's environment, which is made if need be, and return that."""
        venv = Venv(self.directory / ".venv")
        if not venv.path.exists():
            Venv.make(venv.path).install("pip")
        subprocess.run(
            [str(venv.python), "-m", *shlex.split(command)],
            cwd=self.directory,
            env={**self.environ, **variables},
            check=True,
        )
        return venv

    def tool(self, name: str, *arguments: str) -> str:
        return self.uv("tool", "run", "--from", name, *arguments)


def has_it(environment: Path) -> bool:
    """Whether the package is installed in the environment, with its startup file, and can be imported there."""
    venv = Venv(environment)
    imported = venv.run("-c", "import airflow_setproctitle_shim", check=False).returncode == 0
    return imported and (venv.site_packages / STARTUP_FILE).is_file()


PROJECT = f'[project]\nname = "app"\nversion = "1"\nrequires-python = ">={sys.version_info[0]}.{sys.version_info[1]}"\n'


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("requirements.txt", 0), ("pyproject.toml", 1)])
def test_the_line_brings_the_package_to_a_mac_and_to_no_other_system(
    name: str, number: int, project: Project
) -> None:
    project.write(name, block(FILES, number))
    compiled = {
        system: project.uv("pip", "compile", "-q", "--python-platform", system, name)
        for system in ("macos", "linux", "windows")
    }
    assert f"\n{NAME}==" in compiled["macos"]
    assert NAME not in compiled["linux"] + compiled["windows"]


@pytest.mark.slow
def test_pip_reads_the_line_beside_a_lock(project: Project) -> None:
    project.write("requirements.txt", "")
    venv = project.pip(made_true(block(TRAP, 1)))
    assert has_it(venv.path)


@pytest.mark.slow
def test_a_clone_is_a_requirement(project: Project) -> None:
    project.write("requirements.txt", made_true(block(BEFORE)).replace(CLONE, str(ROOT)))
    venv = project.pip("pip install -r requirements.txt")
    assert has_it(venv.path)


@pytest.mark.slow
def test_a_wheel_is_made_of_a_clone_and_found_beside_the_project(project: Project) -> None:
    project.pip(block(BEFORE, 1).replace(CLONE, shlex.quote(str(ROOT))))
    venv = project.pip(f"pip install --find-links wheels {NAME}", PIP_FIND_LINKS="")
    assert has_it(venv.path)


@pytest.mark.slow
def test_constraints_that_do_not_name_it_hold(project: Project) -> None:
    project.write("constraints.txt", "gunicorn==23.0.0\nwrapt==1.17.2\n")
    # Airflow itself, with what it constrains, is in test_dependency_bounds.py.
    venv = project.pip(block("Constraints, as Airflow's").replace("apache-airflow", "gunicorn"))
    show = "from importlib.metadata import version as v; print(v('gunicorn'), v('wrapt'))"
    assert has_it(venv.path) and venv.evaluate(show) == "23.0.0 1.17.2"


@pytest.mark.slow
def test_pip_upgrades_it(project: Project) -> None:
    venv = project.pip(f"pip install {NAME}")
    [recorded] = venv.site_packages.glob("airflow_setproctitle_shim-*.dist-info/METADATA")
    # An older release, as far as pip can tell.
    text = re.sub("(?m)^Version: .*", "Version: 0.1", recorded.read_text(encoding="utf-8"))
    recorded.write_text(text, encoding="utf-8")
    recorded.parent.rename(venv.site_packages / "airflow_setproctitle_shim-0.1.dist-info")
    project.pip(block("Upgrade"))
    show = f"from importlib.metadata import version; print(version({NAME!r}))"
    assert has_it(venv.path) and venv.evaluate(show) != "0.1"


@pytest.mark.slow
def test_uv_adds_it(project: Project) -> None:
    project.write("pyproject.toml", PROJECT)
    _, *arguments = shlex.split(made_true(block(ADD).splitlines()[0]))
    project.uv(*arguments)
    assert has_it(project.directory / ".venv")
    # Wherever the lock is made, it names the package for the systems of the marker.
    lock = (project.directory / "uv.lock").read_text()
    assert f'name = "{NAME}", marker = "sys_platform == \'{made_true("darwin")}\'"' in lock


@pytest.fixture
def index(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an index that has the wheels: Poetry knows no other places."""
    root = tmp_path_factory.mktemp("index")
    for wheel in wheels.glob("*.whl"):
        page = root / wheel.name.partition("-")[0].replace("_", "-")
        page.mkdir()
        (page / wheel.name).write_bytes(wheel.read_bytes())
        (page / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.slow
def test_poetry_adds_it(project: Project, index: str) -> None:
    source = f'[tool.poetry]\npackage-mode = false\n[[tool.poetry.source]]\nname = "here"\nurl = "{index}"\n'
    project.write("pyproject.toml", PROJECT + source)
    project.environ["POETRY_VIRTUALENVS_IN_PROJECT"] = "true"
    # Its own cache may have this version as it was built before.
    project.environ["POETRY_CACHE_DIR"] = str(project.directory / "cache")
    project.tool("poetry", *shlex.split(made_true(block(ADD).splitlines()[1])))
    assert has_it(project.directory / ".venv")
    lock = (project.directory / "poetry.lock").read_text()
    assert f'name = "{NAME}"' in lock and f'sys_platform == \\"{made_true("darwin")}\\"' in lock


@pytest.mark.slow
def test_pipx_injects_it(project: Project) -> None:
    project.environ.update(
        PIPX_HOME=str(project.directory),
        PIPX_BIN_DIR=str(project.directory / "bin"),
        PIPX_DEFAULT_PYTHON=sys.executable,
    )
    project.tool("pipx", "pipx", "install", "-q", "gunicorn")
    project.tool("pipx", *shlex.split(block(PIPX).splitlines()[0]))
    assert has_it(project.directory / "venvs/gunicorn")


@pytest.mark.slow
def test_uv_tool_installs_it_beside_a_program(project: Project) -> None:
    project.environ.update(
        UV_TOOL_DIR=str(project.directory / "tools"), UV_TOOL_BIN_DIR=str(project.directory / "bin")
    )
    _, *arguments = shlex.split(block(PIPX).splitlines()[1])
    project.uv(*arguments)
    assert has_it(project.directory / "tools/gunicorn")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="there the line is kept")
def test_a_lock_made_on_linux_drops_the_line_unless_it_is_universal(project: Project) -> None:
    project.write("requirements.in", block(FILES))
    lock, install = made_true(block(TRAP)).splitlines()
    universal = shlex.split(lock)
    only_here = [word for word in universal if word != "--universal"]

    project.uv(*only_here[1:])
    assert f"\n{NAME}==" not in (project.directory / "requirements.txt").read_text()
    (project.directory / "requirements.txt").unlink()
    project.tool("pip-tools", "pip-compile", "-q", "--strip-extras", "requirements.in")
    assert f"\n{NAME}==" not in (project.directory / "requirements.txt").read_text()
    (project.directory / "requirements.txt").unlink()

    project.uv(*universal[1:])
    text = (project.directory / "requirements.txt").read_text()
    assert re.search(
        rf"^{NAME}==\S+ ; sys_platform == 'darwin' \\\n +--hash=sha256:", text, re.MULTILINE
    )

    # On a Mac pip takes it by that lock.
    project.write("requirements.txt", made_true(text))
    assert has_it(project.pip(install).path)
