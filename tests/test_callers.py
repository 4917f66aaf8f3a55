"""The table of programs that import setproctitle, and what it says of what is installed here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from support.environments import uv

from airflow_setproctitle_shim.diagnosis import callers
from airflow_setproctitle_shim.diagnosis.callers import Does

# What each program does on a Mac, on both sides of each border. Not made from the table: a row that is
# deleted or shifted there must be noticed here.
PROGRAMS = [
    ("apache-airflow 2.11.2", Does.DIES),
    ("apache-airflow 3.0.0", Does.GONE),
    ("apache-airflow-core 3.0.6 gunicorn 24.1.1", Does.DIES),
    ("apache-airflow-core 3.0.6 gunicorn 25.0.0", Does.WITH_OPTION),
    ("apache-airflow-core 3.0.6", Does.WITH_OPTION),
    ("apache-airflow-core 3.1.0", Does.GUARDED),
    ("apache-airflow-core 3.1.0 gunicorn 23.0.0", Does.GUARDED),
    ("apache-airflow-task-sdk 1.0.0", Does.GUARDED),
    ("apache-airflow-providers-celery 3.12.2", Does.DIES),
    ("apache-airflow-providers-celery 3.12.3", Does.GUARDED),
    ("apache-airflow-providers-openlineage 2.6.1", Does.DIES),
    ("apache-airflow-providers-openlineage 2.7.0", Does.ONLY_IMPORTS),
    ("apache-airflow-providers-openlineage 2.7", Does.ONLY_IMPORTS),
    ("apache-airflow-providers-edge3 1.1.3", Does.NO_FORK),
    ("apache-airflow-providers-edge3 1.2.0", Does.GUARDED),
    ("gunicorn 24.1.1", Does.DIES),
    ("gunicorn 25.0.0rc1", Does.GUARDED),
    ("gunicorn 25.0.0", Does.GUARDED),
    ("celery 5.2.7 billiard 3.6.4.0", Does.DIES),
    ("celery 5.2.7 billiard 4.3.0", Does.DIES),
    ("celery 5.3.0 billiard 4.3.0", Does.FAILS),
    ("celery 5.6.3 billiard 4.2.4", Does.DIES),
    ("celery 5.6.3 billiard 4.3", Does.FAILS),
    ("celery 5.6.3 billiard 4.3.2", Does.FAILS),
    ("celery 5.7.0 billiard 4.3.2", Does.WITH_OPTION),
    ("rq 1.16.2", Does.DIES),
    ("django-q2 1.10.0", Does.NO_FORK),
    ("django-q2 1.11.0", Does.DIES),
    ("mitogen 0.3.54", Does.DIES),
    ("thespian 4.0.1", Does.DIES),
    ("mutmut 2.5.1", None),
    ("mutmut 3", Does.DIES),
    ("mutmut 3.5.9", Does.DIES),
    ("mutmut 3.6.0", Does.GUARDED),
    ("parsl 2024.6.10", Does.DIES),
    ("parsl 2024.6.17", Does.WITH_OPTION),
    ("parsl 2025.3.31", Does.WITH_OPTION),
    ("circus 0.19.0", Does.WITH_OPTION),
    ("salt 3007.1", Does.WITH_OPTION),
    ("odoo 18.0", Does.WITH_OPTION),
    ("vpn-slice 0.16.1", Does.WITH_OPTION),
    ("distributed 2026.8.0", Does.WITH_OPTION),
    ("cotyledon 2.2.0", Does.WITH_OPTION),
    ("vllm 0.11.0", Does.WITH_OPTION),
    ("sglang 0.5.10", Does.ONLY_IMPORTS),
    ("granian 2.8.9", Does.NO_FORK),
    ("pytest-xdist 3.8.0", Does.NO_FORK),
    ("skypilot 0.14.1", Does.NO_FORK),
    ("xinference 4.1.0", Does.NO_FORK),
    ("chia-blockchain 2.7.5", Does.NO_FORK),
    ("faust 1.10.4", Does.NO_FORK),
    ("faust-streaming 0.15.3", Does.NO_FORK),
    ("pgcli 4.7.1", Does.NO_FORK),
    ("xonsh 0.25.0", Does.NO_FORK),
    ("deluge 2.2.0", Does.NO_FORK),
    ("ray 2.47.1", Does.OLD_COPY),
    ("ray 2.48.0", Does.OWN_COPY),
    ("ray 2.55.9", Does.OWN_COPY),
    ("ray 2.56.0", Does.GONE),
    ("django 5.2", None),
]


def looked_up(installed: str, requires: bool = False) -> callers.Program | None:
    """What the table has of the first of the programs, like "celery 5.6.3 billiard 4.2.4"."""
    name, *_ = words = installed.split()
    return callers.what(name, dict(zip(words[::2], words[1::2])), requires)


@pytest.mark.parametrize(("installed", "does"), PROGRAMS)
def test_a_program_does_on_a_mac_what_the_table_says(installed: str, does: Does | None) -> None:
    program = looked_up(installed)
    assert (program.row.does if program else None) is does


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        ("gunicorn 23.0.0", "gunicorn 23.0.0"),
        ("circus 0.19.0", "circus 0.19.0 when started with --daemon"),
        ("parsl 2025.3.24", "parsl 2025.3.24 with its MonitoringHub or usage tracking"),
        ("parsl 2025.3.31", "parsl 2025.3.31 with its MonitoringHub"),
        ("skypilot 0.14.1", "not needed by skypilot 0.14.1: it does not fork on macOS"),
        ("gunicorn 25.0.0", "not needed by gunicorn 25.0.0: it does not use setproctitle on macOS"),
        ("ray 2.56.0", "not needed by ray 2.56.0: it does not import setproctitle"),
        ("sglang 1", "sglang 1, which only imports it in a process that forks"),
    ],
)
def test_it_is_said_in_words_that_a_user_understands(installed: str, says: str) -> None:
    program = looked_up(installed)
    assert program and program.says == says


# The option, or what else is particular to a program, in what is said of it.
PARTICULARS = [
    ("apache-airflow-core 3.0.6", "airflow api-server -D"),
    ("celery 5.6.3 billiard 4.3.2", "not enough values to unpack (expected 3, got 0)"),
    ("celery 5.7.0", "celery beat --detach"),
    ("salt 3007.1", "started with -d"),
    ("odoo 18.0", "--workers above 0"),
    ("vpn-slice 0.16.1", "--prevent-idle-timeout"),
    ("distributed 2026.8.0", "distributed.worker.multiprocessing-method"),
    ("cotyledon 2.2.0", "mp_context"),
    ("vllm 0.11.0", "VLLM_WORKER_MULTIPROC_METHOD=fork"),
    ("granian 2.8.9", "set_start_method('fork')"),
    ("ray 2.47.1", "setproctitle 1.2.2"),
    ("ray 2.55.0", "upgrade to ray 2.56"),
]


@pytest.mark.parametrize(("installed", "says"), PARTICULARS)
def test_what_is_particular_is_named(installed: str, says: str) -> None:
    program = looked_up(installed)
    assert program and says in program.says


def test_these_use_setproctitle_only_where_something_else_installed_it() -> None:
    uses = [row for row in callers.CALLERS if row.does in (*MAY_FORK, Does.NO_FORK)]
    optional = {row.name for row in uses if row.optional}
    assert not [row for row in uses if row.name in optional and not row.optional]
    plain = "celery circus deluge distributed django-q2 faust faust-streaming granian gunicorn"
    assert optional == {
        *plain.split(),
        *["mitogen", "odoo", "pytest-xdist", "rq", "thespian", "xonsh"],
    }


def test_the_rows_of_a_program_follow_each_other() -> None:
    rows = [row for row in callers.CALLERS if not row.beside]
    for before, after in zip(rows, rows[1:]):
        if before.name == after.name:
            assert before.before == after.since, after


def test_a_program_that_nobody_examined_is_called_just_that() -> None:
    program = looked_up("mine 1.0", requires=True)
    assert program and program.row.does is Does.NOT_EXAMINED
    assert program.says.startswith("mine 1.0 requires setproctitle, and nobody has examined")
    assert looked_up("mine 1.0") is None
    assert looked_up("mutmut 2.5.1", requires=True) is None  # It was examined.


def test_readme_has_the_rows_that_say_so_and_stars_what_uses_setproctitle_only_if_it_is_there() -> (
    None
):
    rows = dict(callers.readme_rows())
    assert rows["gunicorn up to 24 \\*"].startswith("yes")
    assert any("RQ \\*, django-q2" in run and need == "yes" for run, need in rows.items())
    assert "mutmut 3.0 to 3.5" in rows


# --- the newest releases, read as far as source tells

IMPORTS = re.compile(
    r"(?m)^[ \t]*(?:from setproctitle|import setproctitle)\b|import\w*\(['\"]setproctitle['\"]\)"
)
MAC = re.compile(r"(?i)darwin|is_mac|macos|use_setproctitle")
FORKS = re.compile(
    r"os\.fork(?:pty)?\(|(?:get_context|set_start_method)\(\s*(?:method=)?['\"]fork(?:server)?['\"]"
)
NEAR = 8  # lines


class Newest(NamedTuple):
    """What is read in the newest release's source for a Mac, and what the table must say of it."""

    name: str
    imports: str  # "", "guarded" or "plainly"
    forks: bool
    does: Does
    option: str = ""  # what stands in the source where it dies only with that
    why: str = ""  # where it forks and does not die, or the other way round


NEWEST = [
    Newest("apache-airflow", "", False, Does.GONE),
    Newest("apache-airflow-core", "guarded", False, Does.GUARDED),
    Newest("apache-airflow-task-sdk", "guarded", True, Does.GUARDED),
    Newest("apache-airflow-providers-celery", "guarded", True, Does.GUARDED),
    Newest(
        "apache-airflow-providers-openlineage",
        "guarded",
        True,
        Does.ONLY_IMPORTS,
        option="skipping setproctitle",
        why="what is guarded is the title: on macOS it imports getproctitle()",
    ),
    Newest("apache-airflow-providers-edge3", "guarded", False, Does.GUARDED),
    Newest("gunicorn", "guarded", True, Does.GUARDED),
    Newest("celery", "plainly", True, Does.WITH_OPTION, option="--detach"),
    Newest("rq", "plainly", True, Does.DIES),
    Newest("django-q2", "plainly", True, Does.DIES),
    Newest("mitogen", "plainly", True, Does.DIES),
    Newest("mutmut", "guarded", True, Does.GUARDED),
    Newest("parsl", "plainly", True, Does.WITH_OPTION, option="MonitoringHub"),
    Newest("circus", "plainly", True, Does.WITH_OPTION, option="--daemon"),
    Newest("vpn-slice", "plainly", True, Does.WITH_OPTION, option="--prevent-idle-timeout"),
    Newest(
        "distributed",
        "plainly",
        False,
        Does.WITH_OPTION,
        option="distributed.worker.multiprocessing-method",
        why="the user's configuration names the start method",
    ),
    Newest(
        "cotyledon",
        "plainly",
        False,
        Does.WITH_OPTION,
        option="mp_context",
        why="the user's code gives the start method",
    ),
    Newest("sglang", "plainly", True, Does.ONLY_IMPORTS),
    Newest("granian", "plainly", False, Does.NO_FORK),
    Newest("pytest-xdist", "plainly", False, Does.NO_FORK),
    Newest("skypilot", "plainly", True, Does.NO_FORK, why="a script that imports no setproctitle"),
    Newest("xinference", "plainly", True, Does.NO_FORK, why="for CUDA with vLLM 0.3 only"),
    Newest("chia-blockchain", "plainly", False, Does.NO_FORK),
    Newest("faust", "plainly", False, Does.NO_FORK),
    Newest("faust-streaming", "plainly", False, Does.NO_FORK),
    Newest("pgcli", "plainly", False, Does.NO_FORK),
    Newest("xonsh", "plainly", False, Does.NO_FORK),
    Newest("deluge", "plainly", True, Does.NO_FORK, why="its daemon, which imports it later"),
]
MAY_FORK = (Does.DIES, Does.WITH_OPTION, Does.ONLY_IMPORTS)


def read(directory: Path) -> tuple[str, bool, str]:
    """Return how a program's source imports setproctitle, whether it forks, and all of the source."""
    guards, sources = [], []
    for path in directory.rglob("*.py"):
        parts = {*path.relative_to(directory).parts[:-1]}
        if parts & {"test", "tests", "_tests", "testing", "conftest.py"}:
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        lines = source.splitlines()
        for number, line in enumerate(lines):
            if IMPORTS.search(line):
                near = "\n".join(lines[max(0, number - NEAR) : number + NEAR])
                guards.append(bool(MAC.search(near)))
        sources.append("\n".join(line for line in lines if not line.lstrip().startswith("#")))
    text = "\n".join(sources)
    imports = "" if not guards else "guarded" if all(guards) else "plainly"
    return imports, bool(FORKS.search(text)), text


def test_each_program_of_the_table_is_read_or_it_is_said_why_not() -> None:
    no_wheel = {"odoo", "ray", "salt", "thespian", "vllm"}  # for a Mac and 3.12, or hundreds of MB
    assert {row.name for row in callers.CALLERS} == {one.name for one in NEWEST} | no_wheel


@pytest.mark.slow
@pytest.mark.parametrize("newest", NEWEST, ids=lambda newest: newest.name)
def test_the_newest_release_does_what_the_table_says(newest: Newest, tmp_path: Path) -> None:
    options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
    options += ["--python-platform", "aarch64-apple-darwin", "--target", str(tmp_path)]
    try:
        uv("pip", "install", "--quiet", *options, newest.name)
    except AssertionError as error:
        pytest.skip(f"no wheel of {newest.name} for a Mac: {str(error).splitlines()[-1]}")
    [metadata] = tmp_path.glob("*.dist-info/METADATA")
    version = re.findall(r"(?m)^Version: (\S+)", metadata.read_text(encoding="utf-8"))[0]
    imports, forks, source = read(tmp_path)
    assert (imports, forks) == (newest.imports, newest.forks), version
    assert newest.option in source
    dies = imports == "plainly" and forks
    assert dies is (newest.does in MAY_FORK) or newest.why, "this row says why it is so"
    # The newest of what it is looked up beside.
    program = callers.what(newest.name, {newest.name: version, "billiard": "4.3.2"})
    assert program and program.row.does is newest.does, version
