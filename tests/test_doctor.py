"""`doctor` tells what died and what helps, of what people have at hand: crash reports, their text, and logs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_setproctitle_shim.diagnosis import cli

DATA = Path(__file__).parent / "data"
CASES = [
    pytest.param(case, inputs, id=f"{case.parent.name}-{number}")
    for case in sorted(DATA.glob("cases/*/case.json"))
    for number, inputs in enumerate(json.loads(case.read_text())["inputs"])
]
REPORTS = {
    "Python-2023-notforked-keychain": "not fork",
    "python3.12-airflow45124": "setproctitle",
    "python3.12-airflow64874-getaddrinfo": "network",
    "python3.12-celery869-sqlite": "libdispatch",
    "python3.12-cpython102525": "unknown",
    "python3.12-kalite2844": "_scproxy",
    "python3.12-rubypg631-psycopg-gss-segv": "libpq",
}


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No remedy is set here already, and the default places are empty."""
    for variable in ("NO_PROXY", "PGGSSENCMODE", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))


class Doctor:
    """Runs the command in this process, and keeps what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.status = cli.main(["doctor", "--json", *map(str, arguments)])
        self.data: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert cli.main(["doctor", *map(str, arguments)]) == self.status
        self.text = capsys.readouterr().out
        self.deaths = {death["cause"]: death for death in self.data["deaths"]}
        self.counts = {cause: death["count"] for cause, death in self.deaths.items()}


@pytest.mark.parametrize(("case", "inputs"), CASES)
def test_what_people_brought_has_the_cause_that_was_found_and_what_helped(
    case: Path, inputs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads(case.read_text())
    told = Doctor(capsys, *(case.with_name(name) for name in inputs))
    assert set(told.deaths) <= {*truth["causes"], "unknown"}
    assert bool(set(told.deaths) & set(truth["causes"])) is bool(truth["causes"])
    assert bool(told.deaths) is bool(truth["causes"])
    for cause in set(told.deaths) & set(truth["causes"]):
        for words in truth["advice has"]:
            assert words in " ".join(told.deaths[cause]["advice"])
            assert words in told.text
    assert told.status == int(bool(truth["causes"]))
    assert not re.search(r"(?i)nothing (needs|to do|is to be done)", told.text)
