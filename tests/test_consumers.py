"""Every consumer dies without the shim and does its work with it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from consumers import harness
from consumers.declared import CONSUMERS
from environments import ROOT, Venv

RESULTS = ROOT / "results/consumers.jsonl"
# How a program can tell in its log that a process died by SIGSEGV.
TELLING = (
    b"SIGSEGV",
    b"Segmentation fault",
    b"signal 11",
    b"exit code -11",
    b"return code -11",
    b"exitcode=-11",
)


@pytest.mark.parametrize(
    "consumer",
    [pytest.param(c, id=c.id, marks=[pytest.mark.slow] if c.slow else []) for c in CONSUMERS],
)
def test_dies_without_the_shim_and_works_with_it(
    consumer: harness.Consumer, make_venv: Callable[..., Venv], tmp_path: Path
) -> None:
    missing = [program for program in consumer.needs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed on this machine: {', '.join(missing)}")
    real = ["setproctitle"] if sys.platform == "darwin" else []
    requirements = [*consumer.requirements, *real]
    venv = make_venv(*requirements, exclude_newer=consumer.exclude_newer, python=consumer.python)
    guarded = consumer.before == "guarded"
    before = None if guarded else harness.run(consumer, venv, tmp_path / "before", shim="off")
    after = harness.run(consumer, venv, tmp_path / "after", shim="")
    harness.record(RESULTS, consumer, before, after)

    if before and consumer.before == "dies":
        assert before.deaths > 0, f"this no longer proves anything:\n{before.failure}{tail(before)}"
        assert not before.done, "its work was done in spite of the deaths"
        if consumer.symptom:
            assert consumer.symptom in before.log, f"users' log line is not there:{tail(before)}"
        else:
            told = [word for word in TELLING if word in before.log]
            assert not told, f"the log does tell of deaths, {told}:{tail(before)}"
    if before and consumer.before == "lives":
        assert before.done and before.deaths == 0, before.failure + tail(before)
    assert after.done, after.failure + tail(after)
    assert after.native == [], "the native code was reached"
    assert after.deaths == 0, tail(after)
    assert not consumer.symptom or consumer.symptom not in after.log
    assert b"switched on late" not in after.log


def tail(outcome: harness.Outcome) -> str:
    """The end of a run's log, for the message of a failed assertion."""
    return "\n" + outcome.log[-4000:].decode(errors="replace")
