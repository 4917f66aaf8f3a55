"""Airflow switches the shim on itself when the startup file was not run, and says why."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.consumers import harness
from support.consumers.declared import CONSUMERS
from support.environments import ROOT, STARTUP_FILE, Venv, write

# Airflow imports this after the entry points and before executors, in every process.
LOCAL_SETTINGS = """
import importlib.util, os, sys
print("SERVED", os.getpid(), importlib.util.find_spec("setproctitle").origin, *sys.argv[1:2], file=sys.stderr, flush=True)
"""

AIRFLOW = "Airflow-3.0.2-standalone,-LocalExecutor"
LATE = re.compile(r"airflow-setproctitle-shim was switched on late.*")


def without_its_startup_file(path: Path, wheel: Path, consumer: harness.Consumer) -> Venv:
    """An environment with Airflow and the shim, whose startup file somebody removed, on macOS."""
    venv = Venv.make(path)
    venv.install("--exclude-newer", str(consumer.exclude_newer), *consumer.requirements)
    venv.install("pip")  # as in environments not made by uv
    venv.install(str(wheel))
    (venv.site_packages / STARTUP_FILE).unlink()
    venv.simulate_macos()
    return venv


@pytest.mark.slow
@pytest.mark.long
def test_airflow_survives_without_the_startup_file_and_warns_once_in_each_process(
    wheel: Path, tmp_path: Path
) -> None:
    consumer = next(consumer for consumer in CONSUMERS if consumer.id == AIRFLOW)
    venv = without_its_startup_file(tmp_path / "venv", wheel, consumer)
    assert (
        "SERVED"
        not in venv.run(
            "-c", "import airflow, sys; assert 'setproctitle' not in sys.modules"
        ).stderr
    )

    def work(place: harness.Place) -> None:
        write(place.directory / "config/airflow_local_settings.py", LOCAL_SETTINGS)
        consumer.work(place)

    outcome = harness.run(
        dataclasses.replace(consumer, work=work), venv, tmp_path / "place", shim=""
    )
    log = outcome.log.decode(errors="replace")
    assert outcome.done and outcome.deaths == 0, outcome.failure + log[-4000:]

    served = re.findall(r"SERVED (\d+) (\S+)(.*)", log)
    assert {Path(origin).name for _, origin, _ in served} == {"replacement.py"}
    assert any("scheduler" in command for _, _, command in served)
    warnings = LATE.findall(log)
    assert len(warnings) == len({pid for pid, _, _ in served})

    [warning] = {text.strip() for text in warnings}
    quoted = warning.replace(str(venv.path), "/path/to/.venv").replace(
        venv.site_packages.parent.name, "python3.11"
    )
    # It names where the shim came from.
    quoted = quoted.replace(str(wheel), "airflow-setproctitle-shim")
    page = (ROOT / "docs/switching-on.md").read_text(encoding="utf-8")
    assert quoted in " ".join(re.sub(r"^> ", "", page, flags=re.MULTILINE).split())


BROKEN = "sys.modules['airflow_setproctitle_shim.diagnosis.status'] = None"
SAYS = "from airflow_setproctitle_shim.diagnosis import status; status.why_skipped = lambda: "


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("", ": Python was started with -S and reads no startup file. Start it without -S."),
        (f"{SAYS}('it is gone', ('a line', 'another'))", ": it is gone. Mend it with: a line"),
        (f"{SAYS}('', ())", "; see: python -m airflow_setproctitle_shim status"),
        (BROKEN, "; the reason could not be found out (ModuleNotFoundError: "),
    ],
    ids=["-S", "it can be mended", "nobody knows", "the diagnosis is broken"],
)
def test_the_entry_point_warns_once_why_the_startup_file_did_not_switch_on(
    before: str, why: str, make_venv: Callable[..., Venv]
) -> None:
    venv = make_venv()
    code = f"""
import logging, sys
sys.path.append({str(venv.site_packages)!r})
logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
import simulated_mac  # -S has kept it from being played
simulated_mac.play()
{before}
import airflow_setproctitle_shim.airflow as entry_point, setproctitle
assert setproctitle.__file__.endswith("replacement.py")
entry_point.switch_on()
"""
    [line] = venv.run("-S", "-c", code).stderr.splitlines()
    late = "WARNING airflow-setproctitle-shim was switched on late, by Airflow, not at interpreter start"
    assert line.startswith(f"airflow_setproctitle_shim.airflow {late}{why}")


def test_on_linux_the_entry_point_does_nothing(make_venv: Callable[..., Venv]) -> None:
    code = (
        "import airflow_setproctitle_shim.airflow as entry_point, sys; print(entry_point.is_active());"
        "assert 'airflow_setproctitle_shim.diagnosis' not in sys.modules"
    )
    done = make_venv(macos=False).run("-c", code)
    assert (done.stdout, done.stderr) == ("False\n", "")
