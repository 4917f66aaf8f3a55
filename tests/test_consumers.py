"""Real programs on a simulated Mac: without the shim they die, with it they do their work.

The fast tests run two of them with the stand-in for setproctitle. The slow ones run all of them, with the
stand-in and with setproctitle's own macOS code, and those that set titles with processtitle's, too; on a Mac
all run natively. What they come to is kept in docs/measured.json, which `tools/pages.py --check` compares
with the pages.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import mac
from support.consumers import harness
from support.consumers.declared import COMPATIBLE, CONSUMERS
from support.consumers.harness import (
    DIES,
    FAILS_ANYWAY,
    NEEDS_NOTHING,
    STAND_IN,
    Consumer,
    NativeCode,
    Outcome,
)
from support.environments import SWITCH, Venv


def marks(consumer: Consumer) -> list[pytest.MarkDecorator]:
    """Return what tells when a consumer is to be run."""
    long = [pytest.mark.long] if consumer.program == "Airflow" else []
    return [*long, pytest.mark.alone] if consumer.alone else long


def of(group: str, macos_code: bool = False, fast: bool = False) -> list[object]:
    """Return the consumers of a group as parameters: those to run with the macOS code, or the fast ones, only."""
    return [
        pytest.param(c, id=c.id, marks=marks(c))
        for c in CONSUMERS
        if c.group == group and not (macos_code and c.no_macos_code) and not (fast and c.slow)
    ]


@pytest.fixture
def venv(consumer: Consumer, make_venv: Callable[..., Venv]) -> Venv:
    """The consumer's environment; skips the test where the consumer cannot run."""
    missing = [program for program in consumer.needs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed on this machine: {', '.join(missing)}")
    real = (
        ["setproctitle", "processtitle; python_version >= '3.10'"]
        if sys.platform == "darwin"
        else []
    )
    requirements = [*consumer.requirements, *real]
    return make_venv(*requirements, exclude_newer=consumer.exclude_newer)


@pytest.mark.parametrize("consumer", of(DIES, fast=True))
def test_it_dies_without_the_shim_and_works_with_it(
    consumer: Consumer, venv: Venv, tmp_path: Path
) -> None:
    dies_and_works(consumer, *before_and_after(consumer, venv, tmp_path, STAND_IN))


@pytest.mark.slow
@pytest.mark.parametrize("consumer", of(DIES))
def test_it_dies_in_a_stand_in_and_works_with_the_shim(
    consumer: Consumer, venv: Venv, tmp_path: Path
) -> None:
    before, after = before_and_after(consumer, venv, tmp_path, STAND_IN)
    record(consumer, STAND_IN, before, after)
    dies_and_works(consumer, before, after)


@pytest.mark.slow
@pytest.mark.parametrize("consumer", of(DIES, macos_code=True))
def test_dies_in_setproctitles_macos_code_and_reaches_none_with_the_shim(
    consumer: Consumer, venv: Venv, tmp_path: Path, macos_code: NativeCode
) -> None:
    before, after = before_and_after(consumer, venv, tmp_path, macos_code)
    record(consumer, macos_code, before, after)
    dies_and_works(consumer, before, after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("native", "consumer"),
    [
        pytest.param(native, consumer, id=f"{native}-{consumer.id}", marks=marks(consumer))
        for native in ("the stand-in", "the macOS code")
        for consumer in CONSUMERS
        if consumer.group == NEEDS_NOTHING
        and not (native == "the macOS code" and consumer.no_macos_code)
    ],
)
def test_what_needs_nothing_on_a_mac_works_without_the_shim(
    consumer: Consumer,
    venv: Venv,
    tmp_path: Path,
    native: str,
    request: pytest.FixtureRequest,
) -> None:
    code = request.getfixturevalue("macos_code") if native == "the macOS code" else STAND_IN
    outcome = harness.run(consumer, venv, tmp_path / "before", "off", code)
    record(consumer, code, outcome, None)
    assert outcome.deaths == 0, tail(outcome)
    assert outcome.done, outcome.failure + tail(outcome)
    assert mac.NOT_PLAYED.encode() not in outcome.log


@pytest.mark.slow
@pytest.mark.parametrize("consumer", of(FAILS_ANYWAY))
def test_what_fails_on_a_mac_for_another_reason_does_so_without_the_shim_and_with_it(
    consumer: Consumer, venv: Venv, tmp_path: Path
) -> None:
    before, after = before_and_after(consumer, venv, tmp_path, STAND_IN)
    record(consumer, STAND_IN, before, after)
    assert not before.done and not after.done
    assert after.deaths == 0, tail(after)
    for outcome in (before, after):
        assert consumer.symptom in outcome.log, tail(outcome)
        assert mac.NOT_PLAYED.encode() not in outcome.log


@pytest.mark.slow
@pytest.mark.parametrize("consumer", [pytest.param(COMPATIBLE, id=COMPATIBLE.id)])
def test_it_works_beside_the_shim(consumer: Consumer, venv: Venv, tmp_path: Path) -> None:
    works(consumer, harness.run(consumer, venv, tmp_path / "after", ""))


@pytest.mark.slow
@pytest.mark.parametrize(
    "consumer",
    [pytest.param(consumer, id=consumer.id) for consumer in CONSUMERS if consumer.titles],
)
def test_ps_shows_titles_in_titles_mode_by_processtitles_macos_code_which_calls_nothing_of_apples(
    consumer: Consumer, venv: Venv, tmp_path: Path, macos_code: NativeCode
) -> None:
    after = harness.run(consumer, venv, tmp_path / "titles", "titles", macos_code)
    assert after.done, after.failure + tail(after)
    if sys.platform != "darwin":  # There the native code writes no log.
        assert {line.split(maxsplit=1)[1] for line in after.native} == {
            "loaded processtitle._processtitle"
        }
    assert shown(consumer, after) == list(consumer.titles), "\n".join(after.ps)


def before_and_after(
    consumer: Consumer, venv: Venv, directory: Path, native: NativeCode
) -> tuple[Outcome, Outcome]:
    """Run the consumer without the shim, then with it."""
    before = harness.run(consumer, venv, directory / "before", "off", native)
    return before, harness.run(consumer, venv, directory / "after", "", native)


def record(consumer: Consumer, native: NativeCode, before: Outcome, after: Outcome | None) -> None:
    """Keep what the runs came to, before it is judged. What is published was measured on Linux, and says so."""
    if sys.platform != "darwin":
        harness.record(harness.row(consumer, native, before, after))


def dies_and_works(consumer: Consumer, before: Outcome, after: Outcome) -> None:
    """Check what must hold of the two runs."""
    assert before.deaths > 0, f"this no longer proves anything:\n{before.failure}{tail(before)}"
    assert not before.done, "its work was done in spite of the deaths"
    assert mac.NOT_PLAYED.encode() not in before.log, tail(before)
    if consumer.symptom:
        assert consumer.symptom in before.log, f"users' log line is not there:{tail(before)}"
        assert consumer.symptom not in after.log
    works(consumer, after)


def works(consumer: Consumer, after: Outcome) -> None:
    """Check what must hold of a run with the shim."""
    assert after.done, after.failure + tail(after)
    assert after.native == [], "the native code was reached"
    assert after.deaths == 0, tail(after)
    assert b"switched on late" not in after.log
    assert mac.NOT_PLAYED.encode() not in after.log, tail(after)
    assert shown(consumer, after) == [], "\n".join(after.ps)


def shown(consumer: Consumer, outcome: Outcome) -> list[str]:
    """Those of the consumer's titles that ps shows."""
    return [
        title for title in consumer.titles if any(line.startswith(title) for line in outcome.ps)
    ]


def tail(outcome: Outcome) -> str:
    """The end of a run's log, for the message of a failed assertion."""
    return "\n" + outcome.log[-4000:].decode(errors="replace")


@pytest.mark.slow
def test_setproctitle_is_served_instead_of_the_copy_that_ray_puts_on_the_path(
    make_venv: Callable[..., Venv],
) -> None:
    venv = make_venv("ray==2.47.1")
    code = "import ray, setproctitle; print(setproctitle.__file__)"
    assert "/ray/" in venv.evaluate(code, **{SWITCH: "off"})
    assert venv.evaluate(code).endswith("airflow_setproctitle_shim/replacement.py")
