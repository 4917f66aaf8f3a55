"""Runs the checks. Each is a function from facts to an Answer; facts are gathered once, when a check needs them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import airflow_server, crash_reports, deaths, packages, state
from .finding import Answer, Finding
from .log_file import Logs


@dataclass(frozen=True)
class Facts:
    """Where to look (nowhere: where Airflow and macOS have it), and what was found there, looked for once."""

    logs_at: Sequence[Path] = ()
    crash_reports_at: Sequence[Path] = ()

    @functools.cached_property
    def logs(self) -> Logs:
        return deaths.read(self.logs_at or airflow_server.default_logs(), state.installed_at())

    @functools.cached_property
    def remedy(self) -> str:  # of deaths since the installation, "" if the shim is on
        return "; ".join(finding.remedy for finding in state.startup().findings)

    def crash_reports(self) -> Answer:
        places = self.crash_reports_at or [Path(os.path.expanduser("~/Library/Logs/DiagnosticReports"))]
        return crash_reports.crash_reports(places, state.installed_at(), self.remedy)


# What each check asks, and how it is made: each takes only what it uses.
CHECKS: dict[str, tuple[str, Callable[[Facts], Answer]]] = {
    "startup": ("is the shim on, and if not, why not?", lambda _: state.startup()),
    "used-by": ("who calls setproctitle, and is it there?", lambda _: packages.used_by(packages.installed())),
    "edited": ("were Airflow's files edited by hand?", lambda _: packages.edited(packages.installed())),
    "crash-reports": ("what do macOS's crash reports of Python say?", Facts.crash_reports),
    "crashes": ("do logs tell of deaths?", lambda facts: deaths.crashes(facts.logs, facts.remedy)),
    "execution-api": ("did it refuse workers?", lambda facts: airflow_server.execution_api(facts.logs)),
}


def diagnose(facts: Facts, names: Iterable[str]) -> dict[str, Answer]:
    """Return the answers of the checks named. A check that fails is a finding."""
    answers = {}
    for name in names:
        try:
            answers[name] = CHECKS[name][1](facts)
        except Exception as error:  # noqa: BLE001  # the other checks' findings must still be shown
            evidence = f"the check {name} failed: {type(error).__name__}: {error}"
            finding = Finding("warning", evidence, "please report this line")
            answers[name] = Answer("the check failed", [finding])
    return answers
