"""What keeps the shim off is told by `status`, and its lines, run as they are printed, turn the shim on.

Each state is made in an environment that plays a Mac, in a directory whose name needs quoting. The lines
are run by zsh, a Mac's shell, or by sh where that is missing. pip installs from a directory of wheels.
"""

from __future__ import annotations

import ensurepip
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import mac
from support.environments import (
    ROOT,
    STAND_IN,
    SWITCH,
    UV,
    MadeOnce,
    Venv,
    clean_environ,
    distribution,
    installed,
    is_installed,
    write,
)

from airflow_setproctitle_shim.diagnosis import environment

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
    place = Place(venv, wheels)
    # As code in ASCII: in a C locale Python 3.11.2 reads no other path from a startup file.
    path = ascii(str(pip_of_the_tests(place.home)))
    write(place.site / "pip_of_the_tests.pth", f"import sys; sys.path.append({path})\n")
    return place


def pip_of_the_tests(home: Path) -> Path:
    """A place that pip can be imported from: a copy would take longer than all that it does here."""
    if not is_installed("pip"):  # as in an environment that uv made
        bundled = Path(ensurepip.__file__).with_name("_bundled").glob("pip-*.whl")
        return next(bundled, None) or pytest.skip("no pip is installed here")
    [pip] = installed("pip")
    (home / "pip").mkdir()
    (home / "pip/pip").symlink_to(str(pip.locate_file("pip")))
    return home / "pip"


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
    if sys.version_info >= (3, 15):
        pytest.skip("site reads all startup files before it runs one, so none can play the flag")
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
    remove(place, "zipp")
    # Some import it at once, others when they need it.
    file = place.site / "importlib_metadata/__init__.py"
    text = file.read_text(encoding="utf-8")
    file.unlink()  # It may be read-only, as what it is a copy of.
    write(file, f"{text}\nimport zipp\n")


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
    titles: str = "remembered"  # afterwards
    slow: bool = False  # as another state's line is much the same


TITLES = "shown in ps by processtitle 1.3" if sys.version_info >= (3, 10) else "remembered"
STATES = [
    State(missing, "the startup file is missing"),
    State(empty, "the startup file is empty"),
    State(edited, "the startup file was edited", slow=True),
    State(not_installed, "can be imported, but is not installed"),
    State(elsewhere, "lies where Python does not look for one"),
    State(elsewhere_with_a_sitecustomize, "lies where Python does not look for one"),
    State(in_an_archive, "lies where Python does not look for one"),
    State(hidden, "macOS hides the startup file", lines=slice(1)),
    State(hidden, "macOS hides the startup file", lines=slice(1, None)),
    State(hidden_behind_a_sitecustomize, "macOS hides", lines=slice(1, None)),
    State(native_first_and_no_wrapt, "No module named 'wrapt'"),
    State(
        native_first_and_a_broken_wrapt,
        "wrapt, which makes it harmless, is broken (Zero",
        slow=True,
    ),
    State(no_importlib_metadata, "importlib_metadata is broken (ModuleNotFoundError"),
    State(no_dependency_of_importlib_metadata, "importlib_metadata is broken (ModuleNotFoundError"),
    State(a_broken_importlib_metadata, "is broken (ZeroDivisionError", slow=True),
    State(no_titles, "no titles are shown: processtitle", titles=TITLES),
    State(celery_beside_a_new_billiard, "not enough values to unpack (expected 3, got 0)"),
]


@pytest.mark.parametrize(
    "state",
    [pytest.param(one, marks=[pytest.mark.slow] if one.slow else []) for one in STATES],
    ids=lambda state: state.make.__name__,
)
def test_a_state_is_told_and_its_lines_mend_it(state: State, place: Place) -> None:
    state.make(place)
    told = place.status()
    assert not told["ok"] and state.says in told["says"]
    lines = told["fixes"][state.lines]
    assert lines
    after = place.after(*lines)
    assert after["ok"] and after["on"] and after["says"].startswith("ON: setproctitle is safe")
    assert after["titles"].startswith(state.titles)


def test_a_sitecustomize_that_is_there_is_kept(place: Place) -> None:
    elsewhere_with_a_sitecustomize(place)
    [line] = place.status()["fixes"]
    assert place.after(line, line)["on"]
    text = Path(place.variables["PYTHONPATH"], "sitecustomize.py").read_text(encoding="utf-8")
    assert text.startswith("first = 1") and text.count("startup()") == 2


def test_a_variable_that_switches_it_off_is_named_and_is_no_fault(place: Place) -> None:
    place.variables[SWITCH] = "Off"
    told = place.status()
    assert told["ok"] and told["says"].startswith(f"OFF: {SWITCH} is 'Off'")
    assert place.after(*told["fixes"])["on"]


def test_of_a_python_that_was_started_with_s_it_is_said_that_it_must_not_be(place: Place) -> None:
    code = f"""
import sys
sys.platform = "darwin"
from {SHIM}.diagnosis import cli
sys.exit(cli.main(["status", "--json"]))
"""
    there = {"PYTHONPATH": str(place.site)}
    done = place.venv.run("-S", "-c", code, check=False, **there)
    told = json.loads(done.stdout)
    assert not told["ok"] and "was started with -S" in told["says"] and not told["fixes"]
    place.variables |= there
    assert place.status()["on"]


def native_but_harmless(place: Place) -> None:
    native_first(place)


def blocked(place: Place) -> None:
    write(place.site / "aab_blocks.pth", "import sys; sys.modules['setproctitle'] = None\n")


def blocked_by_a_finder(place: Place) -> None:
    finder = """
import sys
class Blocker:
    @staticmethod
    def find_spec(name, *_):
        if name == "setproctitle":
            raise ImportError("not in here")
sys.meta_path.insert(0, Blocker)
"""
    write(place.site / "blocks.py", finder)
    write(place.site / "zzz_blocks.pth", "import blocks\n")


SAFE = [
    (native_but_harmless, "was imported before the shim, and is harmless now", "remembered"),
    (blocked, "None in sys.modules blocks it", "none"),
    (blocked_by_a_finder, "import hook blocks.Blocker (ImportError: not in here) blocks", "none"),
]


@pytest.mark.parametrize(
    ("make", "says", "titles"), SAFE, ids=lambda it: getattr(it, "__name__", "")
)
def test_what_came_first_and_is_harmless_is_told_and_is_no_fault(
    make: Callable[[Place], None], says: str, titles: str, place: Place
) -> None:
    make(place)
    told = place.status()
    assert told["ok"] and told["on"] and told["says"].startswith("ON: ") and says in told["says"]
    assert told["titles"].startswith(titles) and not told["fixes"]


def answered_by_another_finder(place: Place) -> None:
    write(place.home / "setproctitle.py", "")
    finder = f"""
import sys
from importlib.machinery import PathFinder
class Other:
    def find_spec(self, name, *_):
        return PathFinder.find_spec(name, [{str(place.home)!r}])
sys.meta_path.insert(0, Other())
"""
    write(place.site / "answers.py", finder)
    write(place.site / "zzz_answers.pth", "import answers\n")


def put_there_by_hand(place: Place) -> None:
    put = "import sys, types; sys.modules['setproctitle'] = types.ModuleType('setproctitle')\n"
    write(place.site / "zzz_puts.pth", put)


def taken_off(place: Place) -> None:
    take = f"import sys, {SHIM} as shim; sys.meta_path.remove(shim.finder)\n"
    write(place.site / "zzz_takes.pth", take)


def python_does_not_say(place: Place) -> None:
    """Have site read no startup file of ours, for a reason that nobody knows."""
    write(
        place.site / "hides.py",
        f"""
import site
def addpackage(*args, real=site.addpackage):
    return None if args[1] == {STARTUP_FILE!r} else real(*args)
site.addpackage = addpackage
""",
    )
    write(place.site / "aab_hides.pth", "import hides\n")


HARMFUL = [
    (answered_by_another_finder, "the import hook answers.Other comes first: "),
    (
        put_there_by_hand,
        "sys.modules comes first: `import setproctitle` gives a module that has no file",
    ),
    (taken_off, "something in this environment has taken it off sys.meta_path"),
]
if sys.version_info < (3, 15):  # From there on site reads startup files in another way.
    HARMFUL.append((python_does_not_say, "no reason was found"))


@pytest.mark.parametrize(("make", "says"), HARMFUL, ids=lambda it: getattr(it, "__name__", ""))
def test_what_no_line_mends_is_told_without_one(
    make: Callable[[Place], None], says: str, place: Place
) -> None:
    make(place)
    told = place.status()
    assert not told["ok"] and says in told["says"] and "Workers can crash." in told["says"]
    assert not told["fixes"]
    titles: dict[Callable[[Place], None], str] = {
        answered_by_another_finder: "shown by setproctitle",
        put_there_by_hand: "not known: sys.modules gives a module that has no file",
    }
    assert told["titles"] == titles.get(make, "none: no setproctitle can be imported here")


@pytest.mark.parametrize(
    ("url", "argument"),
    [
        ({"url": "file:///no/such/clone", "dir_info": {}}, OURS),
        ({"url": "https://example.org/it.whl", "archive_info": {}}, OURS),
        (
            {"url": "https://example.org/it", "vcs_info": {"vcs": "git"}},
            "git+https://example.org/it",
        ),
        ({"url": ROOT.as_uri(), "dir_info": {}}, shlex.quote(str(ROOT))),
        ({"url": ROOT.as_uri(), "dir_info": {"editable": True}}, f"-e {shlex.quote(str(ROOT))}"),
        ("no JSON", OURS),
    ],
)
def test_it_is_installed_again_from_where_it_came_from_if_that_is_still_there(
    url: object, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = distribution(tmp_path, OURS, {})
    write(metadata / "direct_url.json", url if isinstance(url, str) else json.dumps(url))
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.reinstall().endswith(f"--force-reinstall --no-deps {argument}")


@pytest.mark.slow
def test_a_wheel_that_it_came_from_is_installed_again(place: Place, wheels: Path) -> None:
    [wheel] = wheels.glob(f"{SHIM}-*.whl")
    kept = shutil.copy(wheel, place.home)
    [metadata] = place.site.glob(f"{SHIM}-*.dist-info")
    url = {"url": Path(kept).as_uri(), "archive_info": {}}
    write(metadata / "direct_url.json", json.dumps(url))
    missing(place)
    del place.variables["PIP_FIND_LINKS"]
    assert place.after(*place.status()["fixes"])["on"]


def test_what_is_installed_suits_what_others_require(place: Place) -> None:
    no_importlib_metadata(place)
    distribution(place.site, "opentelemetry-api", {}, "1", "importlib-metadata (<8.8.0,>=6.0)")
    [line] = place.status()["fixes"]
    assert line.endswith("install 'importlib-metadata<8.8.0,>=6.0,>=6.0'")


needs_debian = pytest.mark.skipif(
    sys.implementation.name != "cpython"
    or not Path("/usr/lib/python{}.{}/EXTERNALLY-MANAGED".format(*sys.version_info)).exists(),
    reason="no Python of this version here is managed by its system (PEP 668)",
)


@needs_debian
def test_in_the_user_site_of_a_managed_python_a_line_works_too(place: Place) -> None:
    place.variables["PYTHONUSERBASE"] = str(place.home / "user base")
    code = "import site; print(site.getusersitepackages())"
    environ = clean_environ(**place.variables)
    site = subprocess.check_output([SYSTEM, "-c", code], text=True, env=environ).strip()
    shutil.copytree(place.site, site)
    place.python, place.site = [SYSTEM], Path(site)
    assert place.status()["on"]
    missing(place)
    [line] = place.status()["fixes"]
    assert "--user --break-system-packages" in line
    assert place.after(line)["on"]


@needs_debian
def test_a_sitecustomize_of_the_base_python_does_not_keep_ours_from_running(
    place: Place, tmp_path: Path
) -> None:
    environ = clean_environ(**place.variables)
    path = tmp_path / "of the system"
    subprocess.run([SYSTEM, "-m", "venv", "--without-pip", str(path)], check=True, env=environ)
    venv = Venv(path)
    shutil.copytree(place.site, venv.site_packages, dirs_exist_ok=True)
    place.venv, place.site, place.python = venv, venv.site_packages, venv.command
    hidden(place)
    _, *lines = place.status()["fixes"]
    assert place.after(*lines)["on"]


@pytest.mark.slow
@pytest.mark.skipif(not UV, reason="uv is missing")
def test_where_uv_made_the_environment_without_pip_uv_installs(place: Place, wheels: Path) -> None:
    (place.site / "pip_of_the_tests.pth").unlink()
    place.variables |= {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels), "UV_NO_CONFIG": "1"}
    place.variables["PATH"] += os.pathsep + str(Path(str(UV)).parent)
    missing(place)
    [line] = place.status()["fixes"]
    assert line.startswith("uv pip install --python ") and place.after(line)["on"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-e"]], ids=["", "editable"])
def test_from_a_clone_it_is_installed_again_from_the_clone(
    options: list[str], place: Place, tmp_path: Path
) -> None:
    clone = tmp_path / "a clone"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "venv", "tests")
    shutil.copytree(ROOT, clone, ignore=ignored)
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        del place.variables[name]
    not_installed(place)
    install = [*place.python, "-m", "pip", "install", "-q", *options, str(clone)]
    assert place.after(shlex.join(install))["on"]
    missing(place)
    [line] = place.status()["fixes"]
    assert line.endswith(shlex.join([*options, str(clone)])) and place.after(line)["on"]
