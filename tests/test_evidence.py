"""No figure of real programs stands in README.md or docs/proof.md that the last run has not given."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence
import pytest
from consumers.declared import CONSUMERS
from environments import ROOT, write

DEATHS = {"native": "macOS code", "before": 4, "given up": True, "done before": False}
RESULT = {**DEATHS, "after": 0, "done": True, "seconds": 7}


class Repository:
    """A copy of the two pages, with the results of a run in which all went well."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results = root / "results/consumers.json"
        write(self.results, json.dumps({consumer.id: RESULT for consumer in CONSUMERS}))
        for page in evidence.PARTS:
            write(root / page, (ROOT / page).read_bytes())

    def check(self) -> int:
        return evidence.main(["--check"], self.root)

    def change_result(self, **values: object) -> None:
        rows: dict[str, dict[str, Any]] = json.loads(self.results.read_text())
        next(iter(rows.values())).update(values)
        self.results.write_text(json.dumps(rows))

    def change_page(self, page: str, pattern: str, replacement: str) -> None:
        text = (self.root / page).read_text()
        changed = re.sub(pattern, replacement, text, count=1)
        assert changed != text
        (self.root / page).write_text(changed)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path)
    assert evidence.main([], tmp_path) == 0
    return made


def test_pages_that_say_what_the_run_gave_pass_and_time_is_no_part_of_it(repository: Repository) -> None:
    assert repository.check() == 0
    repository.change_result(seconds=700)
    assert repository.check() == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.change_result(before=3),
        lambda r: r.change_result(**{"given up": False}),
        lambda r: r.change_result(**{"done before": True}),
        lambda r: r.change_result(after=1),
        lambda r: r.change_result(done=False),
        lambda r: r.change_result(native="stand-in"),
        lambda r: r.change_page("README.md", r"processes of \d+ of", "processes of 99 of"),
        lambda r: r.change_page("docs/proof.md", "4 or more killed", "5 or more killed"),
        lambda r: r.change_page("docs/proof.md", "0 killed, work done", "0 killed, work not done"),
        lambda r: r.change_page("docs/proof.md", r"\| gunicorn .*\n", ""),
    ],
    ids=[
        "deaths before",
        "given up",
        "done before",
        "deaths after",
        "done",
        "native code",
        "README's figure",
        "the page's deaths",
        "the page's work",
        "a row of the page",
    ],
)
def test_it_is_red_when_anything_differs(
    change: Callable[[Repository], None], repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    change(repository)
    assert repository.check() == 1
    assert "the last run" in capsys.readouterr().out


def test_it_is_red_without_a_consumers_result_and_names_it(repository: Repository) -> None:
    rows = json.loads(repository.results.read_text())
    gone, _ = rows.popitem()
    repository.results.write_text(json.dumps(rows))
    with pytest.raises(SystemExit, match=re.escape(gone)):
        repository.check()
    repository.results.unlink()
    with pytest.raises(SystemExit, match="has no result of"):
        repository.check()


@pytest.mark.parametrize("page", evidence.PARTS)
def test_it_is_red_when_a_page_has_lost_its_part(page: str, repository: Repository) -> None:
    repository.change_page(page, r"<!-- \w+: begin -->", "")
    with pytest.raises(SystemExit, match="has no part"):
        repository.check()
