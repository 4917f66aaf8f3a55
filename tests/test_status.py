"""`status` tells whether the shim is on here and whom it protects. What mends it is in test_fixes.py."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support import mac
from support.environments import ROOT, SWITCH, Venv, distribution, write

from airflow_setproctitle_shim.diagnosis import environment

SHIM = "airflow_setproctitle_shim"


def install(venv: Venv, *programs: str) -> None:
    """Install programs like "celery 5.7.0", or "mine 1 requires setproctitle", by their metadata only."""
    for program in programs:
        name, version, *requires = program.split(" ", 3)
        distribution(venv.site_packages, name, {}, version, "".join(requires[1:]))


def told(venv: Venv, **variables: str) -> tuple[str, Any]:
    """What status tells people, unwrapped, and programs. Its exit status agrees with both."""
    text = venv.run("-m", SHIM, "status", check=False, **variables)
    done = venv.run("-m", SHIM, "status", "--json", check=False, **variables)
    data = json.loads(done.stdout)
    assert text.returncode == done.returncode == int(not data["ok"])
    return re.sub(r"\n {4,}", " ", text.stdout), data


def test_on_says_whom_it_protects_and_what_becomes_of_titles(fresh_venv: Venv) -> None:
    install(fresh_venv, "rq 3.0.0", "gunicorn 23.0.0", "circus 0.19.0", "setproctitle 1.3.8")
    text, data = told(fresh_venv)
    assert text.startswith("ON: ") and "remembered, not shown" in text
    assert "  protects  gunicorn 23.0.0, rq 3.0.0\n" in text
    assert "  protects  circus 0.19.0 when started with --daemon\n" in text
    assert data["ok"] and data["on"] and "gunicorn 23.0.0" in data["protects"]
    assert data["import_runs"].endswith("replacement.py") and data["setproctitle"] == "1.3.8"


def test_text_has_all_that_json_says_of_programs(fresh_venv: Venv) -> None:
    programs = [
        "ray 2.50.0",
        "gunicorn 25.0.0",
        "rq 3.0.0",
        "salt 3007",
        "mine 1 requires setproctitle",
    ]
    install(fresh_venv, *programs, "setproctitle 1.3.8")
    text, data = told(fresh_venv)
    said = [program["says"] for program in data["programs"]]
    assert len(said) == 5 and all(sentence in text for sentence in said)
    assert sorted(said) == sorted(data["protects"] + data["others"])
    does = {program["name"]: program["does"] for program in data["programs"]}
    assert does["rq"] == "dies" and does["ray"] == "own copy" and does["mine"] == "not examined"


def test_on_linux_one_line_says_that_it_is_not_needed_and_whom_it_would_protect(
    fresh_venv: Venv,
) -> None:
    install(fresh_venv, "gunicorn 23.0.0", "salt 3007.1", "setproctitle 1.3.8")
    mac.leave(fresh_venv.site_packages)
    text, data = told(fresh_venv)
    whom = "gunicorn 23.0.0, salt 3007.1 when started with -d"
    assert data["says"] == f"Not needed here: this is Linux. On a Mac it would protect {whom}."
    assert " ".join(text.split()) == data["says"]


@pytest.mark.parametrize("on_a_mac", [True, False])
def test_celery_beside_a_billiard_with_which_it_fails_is_a_fault_on_a_mac_only(
    on_a_mac: bool, fresh_venv: Venv
) -> None:
    install(fresh_venv, "celery 5.6.3", "billiard 4.3.2")
    if not on_a_mac:
        mac.leave(fresh_venv.site_packages)
    text, data = told(fresh_venv)
    assert data["ok"] is not on_a_mac
    assert text.count("celery 5.6.3 fails on macOS") == 1
    assert ("FORKED_BY_MULTIPROCESSING=1" in text) is on_a_mac
    assert not data["protects"]


def test_it_is_a_fault_beside_another_one_and_has_a_line_of_its_own(fresh_venv: Venv) -> None:
    install(fresh_venv, "celery 5.6.3", "billiard 4.3.2")
    (fresh_venv.site_packages / f"{SHIM}.pth").unlink()
    _, data = told(fresh_venv)
    assert data["says"].startswith("OFF: ") and "celery 5.6.3 fails" in data["says"]
    assert [line.split()[-1] for line in data["fixes"]] == [
        environment.DISTRIBUTION,
        "'billiard<4.3'",
    ]


def test_where_no_known_program_is_installed_exactly_that_is_said(fresh_venv: Venv) -> None:
    text, data = told(fresh_venv)
    assert data["ok"] and "your workers?" in text and "your workers?" in " ".join(data["remarks"])
    install(fresh_venv, "gunicorn 25.0.0")
    assert "your workers?" not in told(fresh_venv)[0]


def test_who_uses_setproctitle_only_where_it_is_installed_is_named_where_it_is_not(
    fresh_venv: Venv,
) -> None:
    install(fresh_venv, "gunicorn 23.0.0", "skypilot 0.14.1")
    text, _ = told(fresh_venv)
    assert "setproctitle is not installed here, and used only once it is: gunicorn 23.0.0." in text
    install(fresh_venv, "setproctitle 1.3.8")
    assert "not installed" not in told(fresh_venv)[0]


@pytest.mark.skipif("sys.version_info < (3, 10)", reason="processtitle needs Python 3.10")
def test_titles_that_are_shown_are_told(fresh_venv: Venv) -> None:
    code = b"prepare = set_to = lambda *_, **__: 0\n"
    distribution(fresh_venv.site_packages, "processtitle", {"processtitle.py": code}, "1.3")
    text, data = told(fresh_venv, **{SWITCH: "titles"})
    assert data["ok"] and data["titles"] == "shown in ps by processtitle 1.3"
    assert data["titles"] in text and data["variable"] == "titles"


def test_titles_of_a_setproctitle_that_is_not_replaced_are_told(fresh_venv: Venv) -> None:
    files = {"setproctitle/__init__.py": b""}
    distribution(fresh_venv.site_packages, "setproctitle", files, "1.3.8")
    _, data = told(fresh_venv, **{SWITCH: "off"})
    assert data["titles"] == "shown by setproctitle 1.3.8"
    assert data["import_runs"].endswith("setproctitle/__init__.py")


def test_a_program_whose_metadata_requires_setproctitle_on_a_mac_is_found(fresh_venv: Venv) -> None:
    requirements = {
        "always": "setproctitle",
        "with-a-marker": "setproctitle>=1 ; python_version >= '3.9'",
        "in-parentheses": "setproctitle (>=1.1)",
        "elsewhere": "setproctitle; sys_platform != 'darwin'",
        "on-linux": "setproctitle; sys_platform == 'linux'",
        "with-an-extra": "setproctitle; extra == 'titles'",
        "stubs": "setproctitle-stubs",
    }
    install(fresh_venv, *(f"{name} 1 requires {it}" for name, it in requirements.items()))
    install(fresh_venv, "Some_Thing 2.0 requires setproctitle")
    _, data = told(fresh_venv)
    found = [program["name"] for program in data["programs"]]
    assert found == ["always", "in-parentheses", "some-thing", "with-a-marker"]


def test_metadata_may_be_in_any_state_and_of_two_the_one_that_is_imported_counts(
    fresh_venv: Venv,
) -> None:
    site = fresh_venv.site_packages
    write(site / "broken-1.0.dist-info/METADATA", b"\xff\xfe no name")
    write(site / "old.egg-info/PKG-INFO", "Metadata-Version: 1.0\nName: rq\nVersion: 3.0.0\n\n")
    install(fresh_venv, "gunicorn 25.0.0")
    first = fresh_venv.path / "first"
    distribution(first, "gunicorn", {}, "23.0.0")
    _, data = told(fresh_venv, PYTHONPATH=str(first))
    assert data["protects"] == ["gunicorn 23.0.0", "rq 3.0.0"] and not data["others"]


def test_a_finder_from_before_find_spec_blocks_nothing(fresh_venv: Venv) -> None:
    # As six 1.15 has one.
    old = "import sys; sys.meta_path.insert(0, type('Old', (), {'find_module': lambda *_: None})())"
    write(fresh_venv.site_packages / "zzz_old.pth", f"{old}\n")
    _, data = told(fresh_venv)
    assert data["ok"] and data["says"] == "ON: setproctitle is safe in this Python."


def test_the_line_that_the_startup_file_should_have_is_the_one_that_it_has() -> None:
    file = ROOT / f"src/{SHIM}.pth"
    assert file.read_text(encoding="ascii") == f"{environment.STARTUP_LINE}\n"
