"""The sitecustomize template switches the shim on where no startup file is read, and hides nobody's own."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.environments import ROOT, SWITCH, Venv, write

TEMPLATE = ROOT / "sitecustomize_template"
STATE = "import sys; print(getattr(sys.meta_path[0], '__module__', '-'), sys.modules.get('hidden_ran', ''))"

# What stands further down sys.path, as a Homebrew or Debian Python has it.
HIDDEN = {
    "absent": None,
    "well": "import sys; sys.modules['hidden_ran'] = 'yes'\n",
    "importing what is not there": "import not_there\n",
    "importing nothing named sitecustomize": "raise ImportError('itself', name='sitecustomize')\n",
    "exiting": "raise SystemExit('from the hidden one')\n",
}


def test_the_template_is_the_packages_file() -> None:
    """A file, not a link, which becomes text where a checkout is unpacked without links."""
    template = TEMPLATE / "sitecustomize.py"
    assert not template.is_symlink()
    own = ROOT / "src/airflow_setproctitle_shim/as_site_customize.py"
    assert template.read_bytes() == own.read_bytes()


@pytest.fixture(scope="module")
def bare_mac(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """An environment that believes to be on macOS from its start on, and has nothing installed."""
    venv = Venv.make(tmp_path_factory.mktemp("bare") / "venv")
    venv.simulate_macos()
    return venv


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A directory that the shim was installed into by --target, with the template written into it."""
    directory = tmp_path_factory.mktemp("target")
    zipfile.ZipFile(wheel).extractall(directory)
    (directory / "sitecustomize.py").write_text((TEMPLATE / "sitecustomize.py").read_text())
    return directory


@pytest.mark.parametrize("kind", HIDDEN)
@pytest.mark.parametrize("installed", [True, False], ids=["shim installed", "shim missing"])
def test_the_hidden_sitecustomize_runs_or_fails_as_if_ours_were_not_there(
    bare_mac: Venv, target: Path, tmp_path: Path, kind: str, installed: bool
) -> None:
    source = HIDDEN[kind]
    if source is not None:
        (tmp_path / "sitecustomize.py").write_text(source)
    ours = target if installed else TEMPLATE
    alone = bare_mac.run("-c", STATE, check=False, PYTHONPATH=str(tmp_path))
    both = bare_mac.run("-c", STATE, check=False, PYTHONPATH=f"{ours}{os.pathsep}{tmp_path}")
    # Our frames may stand in a traceback; what it says must be the same.
    assert both.stderr.splitlines()[-1:] == alone.stderr.splitlines()[-1:]
    assert both.returncode == alone.returncode
    assert both.stdout.split()[1:] == alone.stdout.split()[1:]
    if both.returncode == 0:
        assert ("airflow_setproctitle_shim" in both.stdout) == installed


def test_the_hidden_sitecustomize_is_the_one_that_others_import(
    bare_mac: Venv, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("MINE = 'mine'\n")
    path = f"{target}{os.pathsep}{tmp_path}"
    assert (
        bare_mac.evaluate("import sitecustomize; print(sitecustomize.MINE)", PYTHONPATH=path)
        == "mine"
    )


def archive(path: Path, *sources: Path) -> Path:
    """Make an archive of these files; return its path."""
    with zipfile.ZipFile(path, "w") as made:
        for source in sources:
            made.write(source, source.name)
    return path


def test_the_hidden_one_may_be_in_an_archive(bare_mac: Venv, target: Path, tmp_path: Path) -> None:
    code = "import sitecustomize; print(sitecustomize.MINE + ascii(sitecustomize.__file__))"
    hidden = archive(tmp_path / "a.zip", write(tmp_path / "sitecustomize.py", "MINE = 'mine'\n"))
    out = bare_mac.evaluate(code, PYTHONPATH=f"{target}{os.pathsep}{hidden}")
    assert out == "mine" + ascii(str(hidden / "sitecustomize.py"))


# As zipimport's loader is before Python 3.10.
OLD_LOADER = """
import sys
from importlib.machinery import ModuleSpec
class Loader:
    @staticmethod
    def find_spec(name, target=None):
        return ModuleSpec(name, Loader) if name == "sitecustomize" else None
    @staticmethod
    def load_module(name):
        assert name not in sys.modules
        sys.modules[name] = module = type(sys)(name)
        module.MINE = "mine"
        return module
def hook(path):
    if path != "/old": raise ImportError(path)
    return Loader
sys.path_hooks.insert(0, hook)
sys.path[:0] = [sys.argv[1], "/old"]
import sitecustomize
print(sitecustomize.MINE)
"""


def test_the_hidden_ones_loader_may_be_of_the_old_kind(bare_mac: Venv, target: Path) -> None:
    assert bare_mac.run("-S", "-c", OLD_LOADER, str(target)).stdout == "mine\n"


@pytest.mark.parametrize("kind", ["package", "archive"])
def test_the_template_may_be_a_package_or_in_an_archive(
    bare_mac: Venv, target: Path, tmp_path: Path, kind: str
) -> None:
    template = (TEMPLATE / "sitecustomize.py").read_text(encoding="utf-8")
    write(tmp_path / "hidden/sitecustomize.py", HIDDEN["well"] or "")
    if kind == "package":
        write(tmp_path / "ours/sitecustomize/__init__.py", template)
    else:
        archive(tmp_path / "ours", TEMPLATE / "sitecustomize.py")
    path = os.pathsep.join(map(str, (tmp_path / "ours", tmp_path / "hidden", target)))
    done = bare_mac.run("-c", STATE, PYTHONPATH=path)
    assert (done.stdout.split(), done.stderr) == (["airflow_setproctitle_shim", "yes"], "")


@pytest.mark.parametrize("ours", ["directory", "archive"])
def test_entries_of_sys_path_may_be_relative(bare_mac: Venv, tmp_path: Path, ours: str) -> None:
    write(tmp_path / "hidden/sitecustomize.py", HIDDEN["well"] or "")
    if ours == "directory":
        write(tmp_path / ours / "sitecustomize.py", (TEMPLATE / "sitecustomize.py").read_bytes())
    else:
        archive(tmp_path / ours, TEMPLATE / "sitecustomize.py")
    code = f"import os, sys; os.chdir({str(tmp_path)!r}); sys.path[:0] = [{ours!r}, 'hidden']; "
    assert bare_mac.run("-S", "-c", f"{code}import sitecustomize; {STATE}").stdout.split()[1:] == [
        "yes"
    ]


def test_in_a_package_that_is_not_on_the_path_it_says_that_nothing_hidden_is_run(
    bare_mac: Venv, tmp_path: Path
) -> None:
    file = write(tmp_path / "app/sitecustomize.py", (TEMPLATE / "sitecustomize.py").read_bytes())
    done = bare_mac.run("-c", "import app.sitecustomize", PYTHONPATH=str(tmp_path))
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{file}: {file.parent} is not on sys.path, so what it hides ")


@pytest.mark.parametrize("error", ["SyntaxError", "PermissionError", "ImportError"])
def test_a_broken_package_does_not_keep_the_hidden_one_from_running(
    bare_mac: Venv, tmp_path: Path, error: str
) -> None:
    write(
        tmp_path / "broken/airflow_setproctitle_shim.py", f"raise {error}('as found on a disk')\n"
    )
    write(tmp_path / "hidden/sitecustomize.py", HIDDEN["well"] or "")
    path = os.pathsep.join(map(str, (TEMPLATE, tmp_path / "broken", tmp_path / "hidden")))
    done = bare_mac.run("-c", STATE, PYTHONPATH=path)
    assert (done.stdout.split()[1:], done.stderr) == (["yes"], "")


def test_a_target_installation_serves_the_replacement(bare_mac: Venv, target: Path) -> None:
    served = bare_mac.evaluate(
        "import setproctitle; print(setproctitle.__file__)", PYTHONPATH=str(target)
    )
    assert served == str(target / "airflow_setproctitle_shim/replacement.py")


def test_it_obeys_the_switch(bare_mac: Venv, target: Path) -> None:
    state = bare_mac.evaluate(STATE, PYTHONPATH=str(target), **{SWITCH: "off"})
    assert "airflow_setproctitle_shim" not in state


def test_on_linux_it_does_nothing(target: Path, make_venv: Callable[..., Venv]) -> None:
    state = make_venv("setproctitle", macos=False).evaluate(STATE, PYTHONPATH=str(target))
    assert "airflow_setproctitle_shim" not in state
