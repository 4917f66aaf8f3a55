"""`status` tells whether the shim is on here, what mends it if not, and whom it protects."""

from __future__ import annotations

import json
import re
import site
import stat
import subprocess
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from support import mac
from support.environments import ROOT, SWITCH, Venv, distribution, write

from airflow_setproctitle_shim.diagnosis import status

SHIM, OURS = "airflow_setproctitle_shim", "airflow-setproctitle-shim"
STARTUP_FILE = f"{SHIM}.pth"
ON_MACOS = f"""
import sys
from {SHIM}.diagnosis import cli, doctor, printing, probe
{{change}}
sys.exit(cli.main(sys.argv[1:]))
"""


def on_macos(venv: Venv, *arguments: str, change: str = "", **variables: str) -> tuple[int, str]:
    """Run the command line in an interpreter that says it is on macOS; return exit status and output."""
    done = venv.run("-c", ON_MACOS.format(change=change), *arguments, check=False, **variables)
    assert done.stderr == ""
    return done.returncode, done.stdout


def install(venv: Venv, *programs: str) -> None:
    """Install programs like "celery 5.7.0", or "mine 1 requires setproctitle", by their metadata only."""
    for program in programs:
        name, version, *requires = program.split(" ", 3)
        distribution(venv.site_packages, name, {}, version, "".join(requires[1:]))


def test_on_says_whom_it_protects_and_what_becomes_of_titles(fresh_venv: Venv) -> None:
    install(fresh_venv, "rq 3.0.0", "gunicorn 23.0.0", "circus 0.19.0", "setproctitle 1.3.8")
    code, text = on_macos(fresh_venv, "status")
    assert code == 0 and text.startswith("ON: ")
    assert "  protects  gunicorn 23.0.0, rq 3.0.0\n" in text and "remembered, not shown" in text
    assert "  protects  circus 0.19.0 when started with --daemon\n" in text
    _, text = on_macos(fresh_venv, "status", "--json")
    data = json.loads(text)
    assert data["ok"] and data["on"] and data["protects"][1:] == ["gunicorn 23.0.0", "rq 3.0.0"]
    assert data["import_runs"].endswith("replacement.py")


def test_on_linux_one_line_says_that_it_is_not_needed_and_whom_it_would_protect(
    fresh_venv: Venv,
) -> None:
    install(fresh_venv, "gunicorn 23.0.0", "setproctitle 1.3.8")
    mac.leave(fresh_venv.site_packages)
    done = fresh_venv.run("-m", SHIM, "status")
    assert re.fullmatch(r"Not needed here: .*Linux.* gunicorn 23\.0\.0\.\n", done.stdout)


def test_where_no_known_program_is_installed_exactly_that_is_said(fresh_venv: Venv) -> None:
    done = fresh_venv.run("-m", SHIM, "status")
    assert done.returncode == 0 and "your workers?" in " ".join(done.stdout.split())


@pytest.mark.parametrize("processtitle", [True, False])
def test_titles_are_those_of_the_module_that_is_imported(
    fresh_venv: Venv, processtitle: bool
) -> None:
    if processtitle:
        distribution(
            fresh_venv.site_packages,
            "processtitle",
            {"processtitle.py": b"prepare = set_to = lambda *_, **__: 0\n"},
            "1.3",
        )
    _, text = on_macos(fresh_venv, "status", "--json", **{SWITCH: "titles"})
    assert ("processtitle 1.3" in json.loads(text)["titles"]) is processtitle


def test_switched_off_on_purpose_is_no_fault_and_names_the_variable(fresh_venv: Venv) -> None:
    code, text = on_macos(fresh_venv, "status", **{SWITCH: "Off"})
    assert code == 0 and text.startswith("OFF: ") and f"unset {SWITCH}" in text


def test_a_finder_that_answers_before_ours_is_named(fresh_venv: Venv, tmp_path: Path) -> None:
    other = write(tmp_path / "setproctitle.py", "")
    change = f"""
from importlib.machinery import PathFinder
sys.meta_path.insert(0, type('Other', (), {{'find_spec': lambda *_: PathFinder.find_spec(_[1], [{str(tmp_path)!r}])}})())
"""
    code, text = on_macos(fresh_venv, "status", change=change)
    assert code == 1 and str(other) in "".join(text.split("\n"))


@pytest.fixture
def startup_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The startup file of a shim that is installed where site looks, with pip beside it."""
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "my site")])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    monkeypatch.syspath_prepend(tmp_path / "my site")
    source = (ROOT / "src" / STARTUP_FILE).read_bytes()
    distribution(tmp_path / "my site", OURS, {STARTUP_FILE: source, "pip.py": b""})
    return tmp_path / "my site" / STARTUP_FILE


def hide(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = types.SimpleNamespace(st_flags=stat.UF_HIDDEN | stat.UF_NODUMP)
    monkeypatch.setattr(Path, "lstat", lambda _: hidden)


def put_elsewhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "getsitepackages", list)


REASONS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], object], str]] = {
    "missing": (
        lambda file, _: file.unlink(),
        "--force-reinstall --no-deps airflow-setproctitle-shim",
    ),
    "hides": (hide, "chflags -R nohidden"),
    "lies where": (put_elsewhere, "sitecustomize > '"),
    "": (lambda _, __: None, ""),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_keeps_the_startup_file_from_running_is_said_with_what_mends_it(
    reason: str, startup_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, mends = REASONS[reason]
    with monkeypatch.context() as patched:
        damage(startup_file, patched)
        why, fixes = status.why_skipped()
    assert reason in why and mends in " ".join(fixes) and bool(why) is bool(reason)


def test_a_remedy_is_a_command_that_works(
    startup_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_elsewhere(startup_file, monkeypatch)
    for lines in (1, 2):  # It makes the file, and does not overwrite one that is there.
        subprocess.run(["sh", "-c", status.why_skipped().fixes[0]], check=True)
        assert startup_file.with_name("sitecustomize.py").read_text().count("startup()") == lines


@pytest.mark.parametrize(
    ("requirement", "counts"),
    [
        ("setproctitle", True),
        ("setproctitle>=1 ; python_version >= '3.9'", True),
        ("setproctitle; sys_platform != 'darwin'", False),
        ("setproctitle; extra == 'titles'", False),
        ("setproctitle-stubs", False),
    ],
)
def test_so_is_whose_metadata_requires_it(fresh_venv: Venv, requirement: str, counts: bool) -> None:
    install(fresh_venv, f"Some_Thing 2.0 requires {requirement}")
    done = fresh_venv.run("-m", SHIM, "status", "--json")
    others = json.loads(done.stdout)["others"]
    assert ["some-thing 2.0 requires" in sentence for sentence in others] == [True] * counts


def test_what_is_to_be_said_of_other_programs_is_said(fresh_venv: Venv) -> None:
    install(fresh_venv, "ray 2.50.0", "gunicorn 25.0.0")
    text = fresh_venv.run("-m", SHIM, "status").stdout
    assert "cannot protect ray 2.50.0" in text and "2.56" in text
    assert "not needed by gunicorn 25.0.0" in text
    assert "Mac it would protect" not in text
