"""What the pages publish is what the code and docs/measured.json have: tools/pages.py goes red at anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import measured
import pages
import pytest
from support.consumers.declared import CONSUMERS
from support.consumers.harness import STAND_IN, Row
from support.environments import ROOT

from airflow_setproctitle_shim.diagnosis import causes
from benchmarks import run as benchmark

MEASURED = "docs/measured.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of all pages and of what was measured."""
    names = {part.page for part in pages.PARTS} | {names.page for names in pages.NAMES}
    for name in {MEASURED, *names}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_pages_say_what_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("page", "was", "now"),
    [
        pytest.param("README.md", "at most 3.6%", "at most 3.5%", id="promise"),
        pytest.param("README.md", "| RQ ", "| QR ", id="who needs it"),
        pytest.param("docs/proof.md", "| 4 or more killed", "| 5 or more killed", id="program"),
        pytest.param("docs/proof.md", "16 (check-in, set)", "15 (check-in, set)", id="release"),
        pytest.param("benchmarks/README.md", "| 0.450 |", "| 0.400 |", id="limit"),
        pytest.param("benchmarks/README.md", "0.30 M", "0.20 M", id="cost"),
        pytest.param("docs/command-line.md", "`import_runs`", "`imports`", id="status key"),
        pytest.param("docs/command-line.md", "`without.ends`", "`without.end`", id="probe key"),
        pytest.param("docs/command-line.md", "`deaths[].cause`", "`deaths[].why`", id="doctor key"),
        pytest.param("docs/troubleshooting.md", "### libpq", "### postgres", id="cause"),
    ],
)
def test_a_page_that_says_anything_else_is_red_and_the_diff_has_both(
    page: str, was: str, now: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(root / page, was, now)
    assert pages.main(["--check"], root) == 1
    diff = capsys.readouterr().out.splitlines()
    old, new = was.strip("`# "), now.strip("`# ")
    assert [line for line in diff if line.startswith("-") and new in line], diff
    assert [line for line in diff if line.startswith("+") and old in line], diff
    assert f"--- {page}" in diff[0]


def a_worker_more(rows: list[dict[str, object]]) -> None:
    rows[0]["deaths_after"] = 1


@pytest.mark.parametrize(
    ("key", "change"),
    [
        pytest.param("consumers", a_worker_more, id="consumers"),
        pytest.param("macos", list.pop, id="macos"),
        pytest.param("benchmark", lambda run: run.update(date="1970-01-01"), id="benchmark"),
    ],
)
def test_what_was_measured_anew_makes_the_pages_red_until_they_are_written(
    key: str, change: Callable[[object], object], root: Path
) -> None:
    value = measured.read(key, root / MEASURED)
    change(value)
    measured.write(key, value, root / MEASURED)
    assert pages.main(["--check"], root) == 1
    assert pages.main([], root) == 0
    assert pages.main(["--check"], root) == 0


def test_a_new_cause_or_key_is_red_until_a_page_explains_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = causes.ALL[0]._replace(name="moon-phase")
    monkeypatch.setattr(causes, "ALL", (*causes.ALL, new))
    assert pages.main([], root) == 1
    assert "+moon-phase" in capsys.readouterr().out


@pytest.mark.parametrize("part", pages.PARTS, ids=lambda part: part.name)
def test_a_page_that_has_lost_its_part_is_named(part: pages.Part, root: Path) -> None:
    replace(root / part.page, f"<!-- {part.name}: begin -->", "")
    with pytest.raises(SystemExit, match=f"{part.page} has no part .*{part.name}: begin"):
        pages.main(["--check"], root)


def test_an_option_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["--chekc"]) == 2
    assert "--chekc" in capsys.readouterr().err


def test_each_program_under_proof_was_measured_and_nothing_else_is_published() -> None:
    macos_code = {row["native"] for row in measured.read("consumers")} - {STAND_IN.name}
    assert len(macos_code) == 1
    natives = [STAND_IN.name, *macos_code]
    assert {Row(**row).key for row in measured.read("consumers")} == {
        (consumer.program, consumer.version, consumer.setup, native)
        for consumer in CONSUMERS
        for native in natives[: 1 if consumer.no_macos_code else 2]
    }


def test_no_cost_that_is_published_is_above_its_limit() -> None:
    run = json.loads((ROOT / MEASURED).read_text(encoding="utf-8"))["benchmark"]["pythons"]
    costs = [(python, figure) for python, figures in run.items() for figure in figures]
    above = [
        (python, figure["what"])
        for python, figure in costs
        if figure["cost"] > benchmark.limit(figure["what"], python)
    ]
    assert costs and not above
