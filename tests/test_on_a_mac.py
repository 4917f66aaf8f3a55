"""tests/on_a_mac.sh is green only where it proved every claim that it was asked for.

It is tried on a Mac that is played by stand-ins, first on PATH: with all as it should be, then with one thing otherwise.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.environments import ROOT, STAND_IN, Venv, write

from airflow_setproctitle_shim.diagnosis.probe import WORKER

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="on a Mac the script itself is run"
)
SCRIPT = ROOT / "tests/on_a_mac.sh"
DEFAULT = ["startup", "crash", "probe", "titles", "hidden"]
CLAIMS = [*DEFAULT, "homebrew", "gunicorn", "spared", "celery", "airflow"]
if sys.version_info < (3, 10) or not shutil.which("ps"):
    CLAIMS.remove("titles")

# The environment that it makes is a copy of a simulated one; what takes a Mac is played.
PYTHON = """#!/bin/sh
case "$*" in
"-m venv "*) mkdir "$3" && cp -pR "$HOME/environment/." "$3" && mv "$3/bin/python" "$3/bin/real" && cp "$0" "$3/bin/python" ;;
"-m pip "* | *version_info*) ;;
"-m pytest "*) echo "1 passed in 60.00s" ;;
*os.fork*) cat "$HOME/children" && cp "$HOME/crash.ips" "$HOME/Library/Logs/DiagnosticReports" ;;
*" probe -n 100 "*) cat "$HOME/probe.json" && cp "$HOME/probe.ips" "$HOME/Library/Logs/DiagnosticReports" ;;
*) exec "${0%/*}/real" "$@" ;;
esac
"""
OLD = "#!/bin/sh\ncase $2 in *version_info*) exit 1 ;; esac\necho too old >&2; exit 3"
CHFLAGS = """#!/bin/sh
cd "$3"/lib/*/site-packages
case $2 in
hidden) mv airflow_setproctitle_shim.pth kept && touch airflow_setproctitle_shim.pth && cp "$HOME/zzz.pth" . ;;
nohidden) mv kept airflow_setproctitle_shim.pth && rm zzz.pth ;;
esac
"""
SKIPS_HIDDEN = 'import sys; sys.platform = "darwin"'
SHOWS_FLAG = """; import pathlib, stat, types; info = types.SimpleNamespace(st_flags=stat.UF_HIDDEN); \
pathlib.Path.lstat = lambda path, info=info: info"""
CRASH = (ROOT / "tests/data/crash-reports/python3.12-airflow45124.ips").read_text(encoding="utf-8")
MAC = {
    "bin/brew": '#!/bin/sh\necho "$HOME/homebrew"',
    "bin/chflags": CHFLAGS,
    "bin/id": "#!/bin/sh\necho 501",
    "bin/sleep": "#!/bin/sh",
    "bin/sw_vers": "#!/bin/sh\necho a stand-in",
    "bin/uname": "#!/bin/sh\necho Darwin",
    "children": "a child ended by signal 11\n",
    "crash.ips": CRASH,
    "probe.ips": CRASH.replace('"triggered": true', f'"triggered": true, "name": "{WORKER}"'),
    "homebrew/opt/python@3.13/bin/python3.13": PYTHON,
    "homebrew/opt/python@3.8/bin/python3.8": OLD,
    "python": PYTHON,
    "zzz.pth": SKIPS_HIDDEN + SHOWS_FLAG,
}

VARIABLES = {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY", "no_proxy", "PYTHON", "SUDO_UID"}

Run = Callable[..., "tuple[int, str]"]


@pytest.fixture(scope="module")
def probed(make_venv: Callable[..., Venv]) -> tuple[Venv, dict[str, Any]]:
    """An environment in which macOS is simulated, and what probe says there, as if it had not been."""
    venv = make_venv("setproctitle", extra="titles" if "titles" in CLAIMS else "")
    # A Mac's native setproctitle kills; the one installed here is Linux's.
    dies = {"PYTHONPATH": str(STAND_IN)}
    said = venv.run(
        "-m", "airflow_setproctitle_shim", "probe", "-n", "2", "--json", check=False, **dies
    ).stdout
    return venv, {**json.loads(said), "simulated": False}


@pytest.fixture
def run(tmp_path: Path, probed: tuple[Venv, dict[str, Any]]) -> Run:
    """Return a function that runs the script on the played Mac and returns its exit status and what it printed.

    Its keywords are files that are otherwise there (None: not there), environment variables, and `probe`,
    which changes what probe says.
    """
    venv, mac = probed
    home = tmp_path / "a home"

    def run(*claims: str, probe: Any = dict, **otherwise: str | None) -> tuple[int, str]:
        said = json.dumps({**mac, **probe(mac)})
        variables = {name: otherwise.pop(name) or "" for name in VARIABLES & {*otherwise}}
        for name, content in {**MAC, "probe.json": said, **otherwise}.items():
            if content is not None:
                write(home / name, content).chmod(0o755)
        (home / "Library/Logs/DiagnosticReports").mkdir(parents=True)
        (home / "environment").symlink_to(venv.path)
        environ = {"HOME": f"{home}", "PYTHON": f"{home}/python", "REPORT": f"{home}/report"}
        environ["PATH"] = f"{home}/bin:/usr/bin:/bin"
        environ.update(variables)
        command = ["sh", str(SCRIPT), *claims]
        done = subprocess.run(
            command, env=environ, check=False, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_without_a_claim_it_proves_those_that_need_nothing_but_python(run: Run) -> None:
    status, said = run(**{"bin/brew": None})
    default = [claim for claim in DEFAULT if claim in CLAIMS]
    assert status == int(default != DEFAULT), said
    assert re.findall(r"### (\w+): proved", said) == default


@pytest.mark.parametrize("variables", [{"bin/id": "#!/bin/sh\necho 0"}, {"SUDO_UID": "501"}])
def test_root_is_told_that_nothing_was_proved_and_why(run: Run, variables: dict[str, str]) -> None:
    status, said = run("startup", "probe", **variables)
    assert status == 1 and "**proved 0 of 2**: run it as yourself" in said and "###" not in said


def test_what_would_hide_deaths_is_unset_and_reported(run: Run) -> None:
    shows = python("*) exec", "*) printenv | grep FORK_SAFETY >&2; exec")
    hides = {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "no_proxy": "*"}
    status, said = run("startup", **hides, **shows)
    assert status == 0, said
    assert "unset for this: OBJC_DISABLE_INITIALIZE_FORK_SAFETY no_proxy\n" in said
    assert "FORK_SAFETY=" not in said


def test_a_python_that_is_too_old_is_passed_over_or_named(run: Run) -> None:
    status, said = run("startup", **{"PYTHON": "", "bin/python3": OLD, "bin/python3.13": PYTHON})
    assert status == 0, said


def test_a_named_python_that_is_too_old_is_refused(run: Run) -> None:
    status, said = run("startup", python=OLD)
    assert status == 2 and "/python is no Python of 3.9 or later" in said


def test_it_is_green_where_all_is_proved_and_names_the_mac_that_was_played(run: Run) -> None:
    status, said = run(*CLAIMS)
    assert status == 0, said
    assert f"**proved {len(CLAIMS)} of {len(CLAIMS)}**\n" in said and said.count(
        ": proved\n"
    ) == len(CLAIMS)
    assert "## macOS a stand-in" in said


def python(was: str, now: str) -> dict[str, str]:
    """Return a change of the Python that is played."""
    return {"python": PYTHON.replace(was, now)}


def killed(**runs: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change of what probe says: in these runs so many children were killed."""
    return lambda said: {which: {**said[which], "killed": count} for which, count in runs.items()}


OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "the startup file is not there": (
        "startup",
        python(" mv ", ' rm "$3"/lib/*/site-packages/airflow_set*.pth && mv '),
    ),
    "off changes nothing": (
        "startup",
        python("*) exec", "*) unset AIRFLOW_SETPROCTITLE_SHIM; exec"),
    ),
    "no child died": ("probe", {"probe": killed(without=0)}),
    "a child died with the shim, too": ("probe", {"probe": killed(**{"with": 1})}),
    "probe simulates": ("probe", {"probe": lambda _: {"simulated": True}}),
    "ps shows no title": (
        "titles",
        {"bin/ps": '#!/bin/sh\necho "$7" | tr , "\\n" | sed "s/$/ python/"'},
    ),
    "nothing was hidden": ("hidden", {"bin/chflags": "#!/bin/sh"}),
    "there is no chflags": ("hidden", {"bin/chflags": None}),
    "it stays hidden": (
        "hidden",
        {"bin/chflags": CHFLAGS.replace("nohidden) mv", "nohidden) true || mv")},
    ),
    "what mends it is not said": ("hidden", {"zzz.pth": SKIPS_HIDDEN}),
    "nobody died, so nothing is reported": ("crash", {"children": "a child ended by signal 0\n"}),
    "no report was written": ("crash", {"crash.ips": ""}),
    "the report is an old one": ("crash", python('cp "$HOME/crash', 'cp -p "$HOME/crash')),
    "the doctor cannot read the report": ("crash", {"crash.ips": "setproctitle_setproctitle"}),
    "reports of probe's workers have no name": ("crash", {"probe.ips": CRASH}),
    "only probe's workers are reported": ("crash", {"crash.ips": MAC["probe.ips"]}),
    "there is no Homebrew": ("homebrew", {"bin/brew": None}),
    "Homebrew has no Python": ("homebrew", {"homebrew/opt/python@3.13/bin/python3.13": None}),
    "Homebrew's Pythons are older than 3.9": (
        "homebrew",
        {"homebrew/opt/python@3.13/bin/python3.13": OLD},
    ),
    "one test of three was skipped": (
        "spared",
        python('"-m pytest "*)', '*gunicorn-27*) echo "1 skipped in 1s" ;;\n"-m pytest "*)'),
    ),
    "the test was skipped": ("celery", python("1 passed", "1 skipped")),
    "the test failed": ("airflow", python('60.00s"', '60.00s"; exit 1')),
    "this is no Mac": ("gunicorn", {"bin/uname": "#!/bin/sh\necho Linux"}),
}


@pytest.mark.parametrize(("claim", "otherwise"), OTHERWISE.values(), ids=OTHERWISE)
def test_it_is_not_green_where(claim: str, otherwise: dict[str, Any], run: Run) -> None:
    if claim not in CLAIMS:
        pytest.skip("titles need Python 3.10 and ps")
    status, said = run(claim, **otherwise)
    assert status == 1, said
    assert (
        f"### {claim}: NOT PROVED\n" in said and f"**proved 0 of 1**, not proved: {claim}\n" in said
    )


def test_one_claim_that_is_not_proved_is_enough(run: Run) -> None:
    status, said = run("gunicorn", "homebrew", "celery", **{"bin/brew": None})
    assert status == 1 and "**proved 2 of 3**, not proved: homebrew\n" in said


def test_an_unknown_claim_is_refused_with_those_that_there_are(run: Run) -> None:
    status, said = run("startup", "gunicron")
    assert status == 2 and "gunicron" in said and "gunicorn" in said


def test_without_an_environment_nothing_is_begun(run: Run) -> None:
    broken = "#!/bin/sh\ncase $2 in *version_info*) ;; *) echo broken >&2; exit 1 ;; esac"
    status, said = run("startup", python=broken)
    assert status == 2 and "broken" in said and "proved" not in said


def test_the_tests_that_it_runs_are_there() -> None:
    script = SCRIPT.read_text(encoding="utf-8")
    rows = re.findall(r'works "[^"]*" "([^"]*)"', script)
    [spared] = re.findall(r"for row in (.*); do", script)
    dies, needs_nothing = re.findall(r'passed "(test_\w+\[.*\])"', script)
    tests = [dies.replace("$2", row) for row in rows]
    tests += [needs_nothing.replace("$row", row) for row in spared.split()]
    assert len(rows) == len(spared.split()) == 3
    arguments = ["-q", "-n0", "--collect-only", "-m", "slow", "-p", "no:cacheprovider"]
    named = [f"tests/test_consumers.py::{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", *arguments, *named]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    assert sorted(collected) == sorted(named)
