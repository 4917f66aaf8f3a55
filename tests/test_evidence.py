"""No figure of real programs stands in README.md or docs/proof.md that the last run has not given."""

from __future__ import annotations

import json
from pathlib import Path

import evidence
import pytest
from support.consumers.declared import CONSUMERS
from support.environments import ROOT, write

DEATHS = {"native": "macOS code", "before": 4, "given up": True, "done before": False}
RESULT = {**DEATHS, "after": 0, "done": True}
RESULTS = {consumer.id: RESULT for consumer in CONSUMERS}
FIRST = CONSUMERS[0].id


def check(root: Path, results: dict[str, object]) -> int:
    write(root / "results/consumers.json", json.dumps(results))
    return evidence.main(["--check"], root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the two pages, with the figures of a run in which all went well."""
    for page in evidence.PARTS:
        write(tmp_path / page, (ROOT / page).read_bytes())
    write(tmp_path / "results/consumers.json", json.dumps(RESULTS))
    assert evidence.main([], tmp_path) == 0
    return tmp_path


def test_pages_that_say_what_the_run_gave_pass(root: Path) -> None:
    assert check(root, {**RESULTS}) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"before": 3},
        {"given up": False},
        {"done before": True},
        {"after": 1},
        {"done": False},
        {"native": "none"},
    ],
    ids=str,
)
def test_it_is_red_when_the_run_gave_anything_else(root: Path, changed: dict[str, object]) -> None:
    assert check(root, {**RESULTS, FIRST: {**RESULT, **changed}}) == 1


@pytest.mark.parametrize(
    ("page", "was", "now"),
    [
        ("README.md", "0 processes were killed", "1 process was killed"),
        ("docs/proof.md", "4 or more killed", "5 or more killed"),
        ("docs/proof.md", "0 killed, work done", "0 killed, work not done"),
        ("docs/proof.md", "| gunicorn ", "| Unicorn "),
    ],
)
def test_it_is_red_when_a_page_says_anything_else(
    root: Path, page: str, was: str, now: str
) -> None:
    text = (root / page).read_text()
    write(root / page, text.replace(was, now, 1))
    assert text.count(was) and check(root, {**RESULTS}) == 1


def test_it_is_red_without_a_consumers_result_and_names_it(root: Path) -> None:
    with pytest.raises(SystemExit, match=f"no result of: {FIRST}"):
        check(root, {name: result for name, result in RESULTS.items() if name != FIRST})


@pytest.mark.parametrize("page", evidence.PARTS)
def test_it_is_red_when_a_page_has_lost_its_part(page: str, root: Path) -> None:
    write(root / page, (root / page).read_text().replace(": begin -->", ": -->"))
    with pytest.raises(SystemExit, match="has no part"):
        check(root, {**RESULTS})
