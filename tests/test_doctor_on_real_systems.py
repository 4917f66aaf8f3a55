"""What the doctor reads in real programs' logs is what really died there, and where a program logs nothing it says so."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consumers.declared import CONSUMERS
from consumers.harness import STAND_IN, Consumer, NativeCode, Outcome
from environments import SWITCH, Venv

SHIM = "airflow_setproctitle_shim"
LOGGED = {"gunicorn", "Celery prefork on Redis"}  # with the pid
PID = re.compile(r"\(pid:(\d+)\) was sent SIGSEGV|pid:(\d+) exited with 'signal 11")
VERSIONS = ("23.0.0 -k sync", "newest", "3.0.2")
READ = [
    consumer
    for consumer in CONSUMERS
    if consumer.version in VERSIONS and consumer.name.startswith((*LOGGED, "Airflow standalone"))
]


@pytest.mark.parametrize(
    "consumer", [pytest.param(c, id=c.id, marks=[pytest.mark.slow] if c.slow else []) for c in READ]
)
def test_the_doctor_counts_the_processes_that_were_killed(
    consumer: Consumer,
    make_venv: Callable[..., Venv],
    macos_code: Callable[..., NativeCode],
    before: Callable[[Consumer, Venv, NativeCode], Outcome],
    tmp_path: Path,
) -> None:
    missing = [program for program in consumer.needs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed on this machine: {', '.join(missing)}")
    venv = make_venv(*consumer.requirements, exclude_newer=consumer.exclude_newer)
    # The run that test_consumers.py has judged, or will.
    outcome = before(consumer, venv, macos_code() if consumer.slow else STAND_IN)
    log = tmp_path / "log.txt"
    log.write_bytes(outcome.log)
    killed = {line.split()[0] for line in outcome.native if line.split()[1] == "killed"}
    assert len(killed) == outcome.deaths > 0
    text = outcome.log.decode(errors="replace")
    assert "Fatal Python error" not in text, "with faulthandler on, more is logged than users have"

    command = ["doctor", "--json", "--only", "crashes", "--logs", str(log)]
    done = venv.run("-m", SHIM, *command, check=False, **{SWITCH: "off"})
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    counted = sum(sum(finding.get("counts", {}).values()) for finding in findings)
    if consumer.name in LOGGED:
        told = {"".join(groups) for groups in PID.findall(text)}
        assert told <= killed
        assert counted == len(told)
        # The last to die is not told of when the program is ended just then.
        assert len(killed) - len(told) <= 4
    else:
        assert counted == 0
        assert any("faulthandler" in finding["evidence"] + finding["remedy"] for finding in findings)
        assert f"unset {SWITCH}" in done.stdout or done.returncode == 0
