"""Every consumer dies without the shim and does its work with it.

The fast tests run some of them with the stand-in for setproctitle. The slow ones run all of them with
setproctitle's own macOS code, and those that set titles with processtitle's, too; on a Mac all run natively.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.consumers import harness
from support.consumers.declared import CONSUMERS
from support.consumers.harness import Consumer, NativeCode, Outcome
from support.environments import SWITCH, Venv


def ids(consumers: list[Consumer]) -> list[object]:
    return [
        pytest.param(c, id=c.id, marks=[pytest.mark.long] if c.name.startswith("Airflow") else [])
        for c in consumers
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


@pytest.mark.parametrize("consumer", ids([consumer for consumer in CONSUMERS if not consumer.slow]))
def test_dies_without_the_shim_and_works_with_it(
    consumer: Consumer, venv: Venv, tmp_path: Path
) -> None:
    judge(consumer, *before_and_after(consumer, venv, tmp_path, harness.STAND_IN))


@pytest.mark.slow
@pytest.mark.parametrize("consumer", ids(CONSUMERS))
def test_dies_in_setproctitles_macos_code_and_reaches_none_with_the_shim(
    consumer: Consumer, venv: Venv, tmp_path: Path, macos_code: NativeCode
) -> None:
    before, after = before_and_after(consumer, venv, tmp_path, macos_code)
    if macos_code.tells:  # What a Mac gives is no figure of the simulation.
        harness.record(consumer, macos_code, before, after)
    judge(consumer, before, after)


@pytest.mark.slow
@pytest.mark.parametrize("consumer", ids([consumer for consumer in CONSUMERS if consumer.titles]))
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


def judge(consumer: Consumer, before: Outcome, after: Outcome) -> None:
    """Check what must hold of the two runs."""
    assert before.deaths > 0, f"this no longer proves anything:\n{before.failure}{tail(before)}"
    assert not before.done, "its work was done in spite of the deaths"
    if consumer.symptom:
        assert consumer.symptom in before.log, f"users' log line is not there:{tail(before)}"
        assert consumer.symptom not in after.log
    assert after.done, after.failure + tail(after)
    assert after.native == [], "the native code was reached"
    assert after.deaths == 0, tail(after)
    assert b"switched on late" not in after.log
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
