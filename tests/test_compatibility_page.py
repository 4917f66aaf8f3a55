"""docs/compatibility.md shows the results of what there is to run."""

from __future__ import annotations

import re

from compatibility import page
from compatibility.checks import CHECKS, UNIT_TESTS
from compatibility.pythons import REQUIRED
from test_dependency_bounds import ERAS


def shown(name: str) -> tuple[list[str], list[str]]:
    """The head and the first column of a table on the page."""
    [block] = re.findall(
        f"<!-- {name}: begin -->\n(.*)<!-- {name}: end -->", page.PAGE.read_text(), re.DOTALL
    )
    rows = [[cell.strip() for cell in line.split(" | ")] for line in block.splitlines() if line[:1] == "|"]
    return rows[0], [row[0].strip("| ") for row in rows[2:]]


def test_the_page_has_every_check_and_every_required_python() -> None:
    head, checks = shown("matrix")
    assert checks == [check.name for check in [*CHECKS, UNIT_TESTS]]
    assert {cell.partition(" ")[0] for cell in head} >= set(REQUIRED)


def test_the_page_has_every_release_of_airflow_that_is_resolved() -> None:
    assert shown("bounds")[1] == list(ERAS)


def test_the_page_shows_no_failure() -> None:
    assert "FAIL" not in page.PAGE.read_text()
