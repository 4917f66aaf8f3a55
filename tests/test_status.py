"""`status` tells whether the shim is on here, what mends it if not, and whom it protects."""

from __future__ import annotations

import json
import re
import site
import stat
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import ROOT, SIMULATED_MACOS, SWITCH, Venv, distribution, write

from airflow_setproctitle_shim.diagnosis import packages, status

SHIM, OURS = "airflow_setproctitle_shim", "airflow-setproctitle-shim"
STARTUP_FILE = f"{SHIM}.pth"
# The platform is changed late: under a simulated one the standard library fails to import.
ON_MACOS = f"""
import sys
from {SHIM}.diagnosis import cli, doctor, printing, probe
{{change}}
sys.platform = "darwin"
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
    install(fresh_venv, "celery 5.7.0", "gunicorn 23.0.0", "setproctitle 1.3.8")
    code, text = on_macos(fresh_venv, "status")
    assert code == 0 and text.startswith("ON: ")
    assert "celery 5.7.0, gunicorn 23.0.0\n" in text and "remembered, not shown" in text
    _, text = on_macos(fresh_venv, "status", "--json")
    data = json.loads(text)
    assert data["ok"] and data["on"] and data["protects"] == ["celery 5.7.0", "gunicorn 23.0.0"]
    assert data["import_runs"].endswith("replacement.py")


def test_on_linux_one_line_says_that_it_is_not_needed_and_whom_it_would_protect(fresh_venv: Venv) -> None:
    install(fresh_venv, "gunicorn 23.0.0")
    for name in SIMULATED_MACOS:
        (fresh_venv.site_packages / name).unlink()
    done = fresh_venv.run("-m", SHIM, "status")
    assert re.fullmatch(r"Not needed here: .*Linux.* gunicorn 23\.0\.0\.\n", done.stdout)


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_where_no_known_program_is_installed_exactly_that_is_said(fresh_venv: Venv, command: str) -> None:
    done = fresh_venv.run("-m", SHIM, "status")
    assert done.returncode == 0 and "your workers?" in " ".join(done.stdout.split())


@pytest.mark.parametrize("processtitle", [True, False])
def test_titles_are_those_of_the_module_that_is_imported(fresh_venv: Venv, processtitle: bool) -> None:
    if processtitle:
        distribution(
            fresh_venv.site_packages,
            "processtitle",
            {"processtitle.py": b"prepare = set_to = lambda *_, **__: 0\n"},
            "1.3",
        )
    _, text = on_macos(fresh_venv, "status", "--json", **{SWITCH: "titles"})
    assert ("processtitle 1.3" in json.loads(text)["titles"]) is processtitle
    distribution(fresh_venv.site_packages, "setproctitle", {"setproctitle.py": b""}, "1.3.8")
    # It was off when the interpreter started, whatever the variable says now.
    _, text = on_macos(
        fresh_venv,
        "status",
        "--json",
        change=f"import os; os.environ[{SWITCH!r}] = 'titles'",
        **{SWITCH: "off"},
    )
    assert json.loads(text)["titles"] == "shown by setproctitle 1.3.8"


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


@pytest.mark.parametrize("content", [b'"\xff\0\n,,,\n', b"a,b\n", b""], ids=["binary", "text", "empty"])
@pytest.mark.parametrize("file", ["RECORD", "METADATA"])
def test_metadata_may_be_in_any_state(fresh_venv: Venv, file: str, content: bytes) -> None:
    [path] = fresh_venv.site_packages.glob(f"{SHIM}-*/{file}")
    path.write_bytes(content)
    install(fresh_venv, "gunicorn 23.0.0")
    done = fresh_venv.run("-m", SHIM, "status", check=False)
    assert (done.returncode, done.stderr) == (0, "") and "gunicorn 23.0.0" in done.stdout


# --- why it is off -------------------------------------------------------------------------------


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
    monkeypatch.setattr(
        Path, "lstat", lambda _: types.SimpleNamespace(st_flags=stat.UF_HIDDEN | stat.UF_NODUMP)
    )


def put_elsewhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "getsitepackages", list)


def put_a_sitecustomize(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_elsewhere(file, monkeypatch)
    write(file.with_name("sitecustomize.py"), "# mine\n")


def start_without_site(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if not name.startswith("_")}
    monkeypatch.setattr(sys, "flags", types.SimpleNamespace(**{**flags, "no_site": 1}))


REASONS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], object], str]] = {
    "missing": (lambda file, _: file.unlink(), "--force-reinstall --no-deps airflow-setproctitle-shim"),
    "does not switch": (
        lambda file, _: file.write_text("# import airflow_setproctitle_shim as s; s.startup()\n"),
        "--force-reinstall",
    ),
    "hides": (hide, "chflags -R nohidden"),
    "lies where": (put_elsewhere, "sitecustomize > '"),
    "lies": (put_a_sitecustomize, "echo 'import airflow_setproctitle_shim; "),
    "-S": (start_without_site, "without -S"),
    "ignores": (lambda _, monkeypatch: monkeypatch.setattr(sys, "version_info", (3, 18, 0)), "--upgrade"),
    "": (lambda _, __: None, ""),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_keeps_the_startup_file_from_running_is_said_with_what_mends_it(
    reason: str, startup_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, mends = REASONS[reason]
    with monkeypatch.context() as patched:
        damage(startup_file, patched)
        why, fix = status.why_skipped()
    assert reason in why and mends in fix and bool(why) is bool(reason)


def test_a_remedy_is_a_command_that_works(startup_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_elsewhere(startup_file, monkeypatch)
    for lines in (1, 2):  # It makes the file, and does not overwrite one that is there.
        subprocess.run(["sh", "-c", status.why_skipped()[1]], check=True)
        assert startup_file.with_name("sitecustomize.py").read_text().count("startup()") == lines


# --- whom it protects ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("apache-airflow 2.11.0", packages.CALLS),
        ("apache-airflow 3.0.2", packages.GONE),
        ("apache-airflow-core 3.0.6", packages.CALLS),
        ("apache-airflow-core 3.1.0", packages.GUARDED),
        ("apache-airflow-providers-celery 3.12.2", packages.CALLS),
        ("apache-airflow-providers-celery 3.13.0", packages.GUARDED),
        ("gunicorn 24.1.1", packages.CALLS),
        ("gunicorn 25.0.0rc1", packages.GUARDED),
        ("ray 2.47.1", packages.CALLS),
        ("ray 2.55.9", packages.OWN_COPY),
        ("ray 2.56.0", packages.GONE),
        ("mutmut 2.5.1", packages.GONE),
        ("django-q2 1.11.1", packages.CALLS),
        ("vpn-slice 0.16.1", packages.CALLS),
        ("nobody 1.0", packages.GONE),
    ],
)
def test_who_calls_setproctitle_is_known_by_version(program: str, what: str) -> None:
    name, version = program.split()
    assert packages.what(name, version, requires=False) == what


@pytest.mark.parametrize(
    ("requirement", "counts"),
    [
        ("setproctitle", True),
        ("setproctitle (>=1.1.8)", True),
        ("setproctitle>=1 ; python_version >= '3.9'", True),
        ("setproctitle; sys_platform == 'darwin'", True),
        ("setproctitle; sys_platform != 'darwin'", False),
        ("setproctitle; platform_system == 'Linux' and sys_platform == 'linux'", False),
        ("setproctitle; extra == 'titles'", False),
        ("setproctitle-stubs", False),
    ],
)
def test_so_is_whose_metadata_requires_it(fresh_venv: Venv, requirement: str, counts: bool) -> None:
    install(fresh_venv, f"Some_Thing 2.0 requires {requirement}")
    done = fresh_venv.run("-m", SHIM, "status", "--json")
    assert json.loads(done.stdout)["protects"] == ["some-thing 2.0"] * counts


def test_what_is_to_be_said_of_other_programs_is_said(fresh_venv: Venv) -> None:
    install(fresh_venv, "ray 2.50.0", "gunicorn 25.0.0")
    text = fresh_venv.run("-m", SHIM, "status").stdout
    assert "ray 2.50.0 has" in text and "2.56" in text and "gunicorn 25.0.0 does not" in text
    assert "Mac it would protect" not in text
