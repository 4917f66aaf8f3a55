"""`status` tells whether the shim is on here and why, and when it should be on, what mends it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from environments import ROOT, SWITCH, Venv, uv

# The platform is changed late: under a simulated one the standard library fails to import.
ON_MACOS = """
import sys
from airflow_setproctitle_shim.diagnosis import cli, environment
{change}
sys.platform = "darwin"
sys.exit(cli.main(sys.argv[1:]))
"""
HIDE = """
import pathlib, stat, types
lstat = pathlib.Path.lstat
def hidden(path):
    info = lstat(path)
    if path.name.startswith("airflow_setproctitle_shim."):
        return types.SimpleNamespace(st_mode=info.st_mode, st_flags=stat.UF_HIDDEN)
    return info
pathlib.Path.lstat = hidden
"""
SHIM = "airflow_setproctitle_shim"


def on_macos(venv: Venv, *arguments: str, change: str = "", **variables: str) -> tuple[int, str]:
    """Run the command line in an interpreter that says it is on macOS; return exit status and output."""
    done = venv.run("-c", ON_MACOS.format(change=change), *arguments, check=False, **variables)
    assert done.stderr == ""
    return done.returncode, done.stdout


def first_ten(text: str) -> str:
    return "\n".join(text.splitlines()[:10])


@pytest.fixture
def mac(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv("setproctitle")


@pytest.fixture
def linux(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv("setproctitle", macos=False)


@pytest.fixture
def own_venv(tmp_path: Path, wheel: Path) -> Venv:
    """An environment where no startup file runs, as none is for this platform, and the test may change."""
    venv = Venv.make(tmp_path / "venv")
    venv.install("--link-mode", "copy", str(wheel), "setproctitle")
    return venv


def test_off_on_linux_is_fine_and_says_so(linux: Venv) -> None:
    done = linux.run("-m", SHIM, "status")
    assert done.stdout.startswith("off: this is linux")
    assert f"{SWITCH} is not set" in done.stdout


def test_on_says_what_import_runs_and_that_no_finder_stands_before(mac: Venv) -> None:
    done = mac.run("-m", SHIM, "status")
    assert done.stdout.startswith("on: ")
    assert "before it: none" in done.stdout
    assert "replacement.py" in done.stdout
    assert "crashes after fork on macOS" in done.stdout


def test_finders_before_ours_are_named(mac: Venv) -> None:
    change = "sys.meta_path.insert(0, type('Other', (), {'find_spec': lambda *_: None})())"
    status, output = on_macos(mac, "status", change=change)
    assert (status, "before it: __main__.Other" in output) == (0, True)


def test_a_finder_that_answers_before_ours_needs_attention(mac: Venv, tmp_path: Path) -> None:
    (tmp_path / "setproctitle.py").touch()
    change = f"""
from importlib.machinery import PathFinder
sys.meta_path.insert(0, type('Other', (), {{'find_spec': lambda *_: PathFinder.find_spec(_[1], [{str(tmp_path)!r}])}})())
"""
    status, output = on_macos(mac, "status", change=change)
    assert status == 1
    assert str(tmp_path / "setproctitle.py") in first_ten(output)


def test_switched_off_on_purpose_is_fine_and_names_the_variable(mac: Venv) -> None:
    status, output = on_macos(mac, "status", **{SWITCH: "Off"})
    assert status == 0
    assert f"{SWITCH} is 'Off'" in first_ten(output)
    assert f"unset {SWITCH}" in first_ten(output)


def drop(venv: Venv) -> None:
    (venv.site_packages / STARTUP_FILE).unlink()


def edit(venv: Venv) -> None:
    (venv.site_packages / STARTUP_FILE).write_text("# nothing\n")


def nothing(venv: Venv) -> None:
    pass


STARTUP_FILE = f"{SHIM}.start" if sys.version_info >= (3, 15) else f"{SHIM}.pth"


@pytest.mark.parametrize(
    ("damage", "change", "cause", "remedy"),
    [
        (nothing, HIDE, "is hidden by macOS", "chflags -R nohidden"),
        (drop, "", "is missing", "install"),
        (edit, "", "is not the file that was installed", "install"),
        (nothing, "", "something switched it off again", "-v -c pass"),
    ],
)
@pytest.mark.parametrize("command", ["status", "doctor"])
def test_the_first_ten_lines_name_why_it_is_off_on_macos_and_the_next_command(
    own_venv: Venv, damage: Callable[[Venv], None], change: str, cause: str, remedy: str, command: str
) -> None:
    damage(own_venv)
    status, output = on_macos(own_venv, command, change=change)
    assert status == 1
    assert cause in " ".join(first_ten(output).split())
    assert any(line.startswith("  -> ") and remedy in line for line in first_ten(output).splitlines())


def test_a_remedy_mends_what_it_says(own_venv: Venv, wheel: Path) -> None:
    drop(own_venv)
    _, output = on_macos(own_venv, "status")
    [remedy] = [line[5:] for line in output.splitlines() if line.startswith("  -> ")]
    # The command names the package; its wheel stands in for the package index.
    assert remedy.endswith(" airflow-setproctitle-shim") and "--force-reinstall --no-deps" in remedy
    uv(*remedy.replace("airflow-setproctitle-shim", str(wheel)).split()[1:])
    assert (own_venv.site_packages / STARTUP_FILE).exists()


def test_a_directory_that_site_passes_by_is_named_with_the_sitecustomize_command(
    tmp_path: Path, wheel: Path
) -> None:
    venv = Venv.make(tmp_path / "venv")
    target = tmp_path / "target"
    uv("pip", "install", "--quiet", "--python", str(venv.python), "--target", str(target), str(wheel))
    status, output = on_macos(venv, "status", PYTHONPATH=str(target))
    assert status == 1
    assert "where site does not look" in " ".join(first_ten(output).split())
    assert f"sitecustomize --write {target}" in first_ten(output)


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize(
    ("gone", "state"), [("setproctitle*", "is not installed"), ("setproctitle", "lacks files")]
)
def test_a_required_setproctitle_deleted_by_hand_is_named_with_the_command_that_brings_it_back(
    own_venv: Venv, command: str, gone: str, state: str
) -> None:
    for path in own_venv.site_packages.glob(gone):
        shutil.rmtree(path)
    metadata = own_venv.site_packages / "needy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: setproctitle (>=1.1.8)\n"
    )
    done = own_venv.run("-m", SHIM, command, check=False)
    assert done.returncode == 1
    head = first_ten(done.stdout)
    assert f"setproctitle {state}, though needy 1.0 requires it" in " ".join(head.split())
    assert "--force-reinstall --no-deps setproctitle" in head


@pytest.mark.parametrize(
    ("value", "extra", "text"),
    [
        ("auto", "", "remembered, not shown"),
        ("titles", "", "pip install 'airflow-setproctitle-shim[titles]'"),
        ("titles", "titles", "shown in ps by processtitle 1."),
    ],
)
def test_it_says_what_becomes_of_titles(
    make_venv: Callable[..., Venv], value: str, extra: str, text: str
) -> None:
    venv = make_venv("psutil", extra=extra)
    [line] = [
        line
        for line in venv.run("-m", SHIM, "status", **{SWITCH: value}).stdout.splitlines()
        if line.startswith("  titles")
    ]
    assert text in line


def test_another_interpreter_is_asked_by_its_path(mac: Venv, linux: Venv) -> None:
    done = linux.run("-m", SHIM, "status", "--python", str(mac.python))
    assert done.stdout.startswith("on: ")
    assert str(mac.python) in done.stdout


def test_an_interpreter_without_the_shim_is_told_how_to_get_it(linux: Venv, tmp_path: Path) -> None:
    other = Venv.make(tmp_path / "other")
    done = linux.run("-m", SHIM, "status", "--python", str(other.python), check=False)
    assert done.returncode == 1
    assert f"  -> {other.python} -m pip install airflow-setproctitle-shim" in done.stderr.splitlines()


def test_an_interpreter_that_is_none_is_named(linux: Venv) -> None:
    done = linux.run("-m", SHIM, "status", "--python", "/no/python", check=False)
    assert done.returncode == 1
    assert "/no/python" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("platform", ["mac", "linux", "hidden"])
def test_json_follows_the_schema(platform: str, mac: Venv, linux: Venv) -> None:
    change = HIDE if platform == "hidden" else ""
    if platform == "linux":
        output = linux.run("-m", SHIM, "status", "--json").stdout
    else:
        _, output = on_macos(linux if change else mac, "status", "--json", change=change)
    data = json.loads(output)
    jsonschema.validate(data, json.loads((ROOT / "docs/json-schema/status.json").read_text()))
    assert (data["on"], data["ok"]) == {
        "mac": (True, True),
        "linux": (False, True),
        "hidden": (False, False),
    }[platform]
