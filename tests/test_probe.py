"""`probe` tells how forked workers end, without the shim and with it, in the user's own environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.environments import SWITCH, Venv, write
from support.processes import wait_for

from airflow_setproctitle_shim.diagnosis import cli, environment
from airflow_setproctitle_shim.diagnosis import probe as probe_module

SHIM = "airflow_setproctitle_shim"
NEEDS_3_10 = pytest.mark.skipif(sys.version_info < (3, 10), reason="processtitle needs Python 3.10")
SAFE = """
import os, pathlib, threading
def look():
    pathlib.Path(__file__).with_name("alone" if threading.active_count() == 1 else "in company").touch()
os.register_at_fork(before=look)
def setproctitle(new):
    global title
    title = new
def getproctitle():
    return title
"""


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (SWITCH, "PYTHONPATH", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(variable, raising=False)


def probe(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Return the exit status, the JSON, and what people read."""
    status = cli.main(["probe", "--json", *arguments])
    data = json.loads(capfd.readouterr().out)
    assert cli.main(["probe", *arguments]) == status == int(not data["ok"])
    return status, data, capfd.readouterr().out


def test_workers_die_without_the_shim_and_none_does_with_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status, data, text = probe(capfd, "-n", "25")
    assert status == 0 and data["simulated"] and "SIMULATED" in text.splitlines()[0]
    assert (data["without"]["killed"], data["without"]["ends"]) == (25, {"SIGSEGV": 25})
    assert (data["with"]["killed"], data["with"]["ends"], data["with"]["served"]) == (
        0,
        {"ok": 25},
        True,
    )
    assert data["says"] in text


@pytest.mark.parametrize("value", ["off", "0", " Disable "])
def test_off_in_the_environment_is_said(
    value: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, value)
    status, data, text = probe(capfd, "-n", "1")
    assert status == 1 and data["with"]["served"] and data["with"]["killed"] == 0
    assert data["fix"] == f"unset {SWITCH}" and data["fix"] in text


@NEEDS_3_10
def test_titles_are_shown_by_ps_whatever_startup_files_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "sitecustomize.py", "print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(SWITCH, "titles")
    status, data, text = probe(capfd, "-n", "22")
    assert status == 0
    assert data["ps"] == [f"probe: worker {n + 1}" for n in range(22)]
    assert data["ps"][0] in text


@pytest.mark.parametrize("script", ["exit 1", "echo python", "echo probe: worker 2"])
def test_titles_that_ps_does_not_show_are_a_failure(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, "titles")
    write(tmp_path / "ps", f"#!/bin/sh\n{script}\n").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    status, data, _ = probe(capfd, "-n", "1")
    assert status == 1 and "processtitle" in data["fix"] and "titles" in data["says"]


def test_without_a_native_setproctitle_it_simulates_on_a_mac_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(environment, "version", lambda name: "")
    _, data, text = probe(capfd, "-n", "2")
    assert data["simulated"] and "SIMULATED" in text and data["without"]["ends"] == {"SIGSEGV": 2}


def test_that_no_worker_died_is_no_success(make_venv: Callable[..., Venv], tmp_path: Path) -> None:
    code = f"import sys; from {SHIM}.diagnosis import cli, environment; sys.platform = 'darwin'; environment.version = lambda name: '1'; sys.exit(cli.main(['probe', '-n', '3', '--json']))"
    write(tmp_path / "setproctitle.py", SAFE)
    done = make_venv("setproctitle").run("-c", code, check=False, PYTHONPATH=str(tmp_path))
    data = json.loads(done.stdout)
    assert done.returncode == 1 and not data["simulated"]
    assert data["with"]["served"] and data["without"]["killed"] == 0
    assert "probe -n 30" in data["fix"]
    # Real programs have other threads when they fork.
    assert (tmp_path / "in company").exists() and not (tmp_path / "alone").exists()


ON_A_MAC = f"""
import signal, sys
for number in (signal.SIGINT, signal.SIGHUP):  # which a shell's background jobs, or nohup's, ignore
    signal.signal(number, signal.SIG_DFL)
from {SHIM}.diagnosis import cli, environment, probe
sys.platform, environment.version = "darwin", lambda name: "1.3.8"
probe.SECONDS = int(sys.argv[1])
sys.exit(cli.main(["probe", "-n", "3"]))
"""
HANGS = """
import contextlib, pathlib, time
def setproctitle(title):
    pathlib.Path(__file__).with_name("begun").touch()
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # as native code does
            time.sleep(60)
getproctitle = str
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_probe_ends_no_process_is_left(tmp_path: Path, end: signal.Signals) -> None:
    psutil = pytest.importorskip("psutil", reason="needs psutil")
    write(tmp_path / "setproctitle.py", HANGS)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    seconds = "60" if end == signal.SIGINT else "5"
    with psutil.Popen(
        [sys.executable, "-c", ON_A_MAC, seconds],
        env=environ,
        start_new_session=True,
        stderr=subprocess.PIPE,
    ) as probing:
        wait_for("a worker that hangs", (tmp_path / "begun").exists, 60)
        started = probing.children(recursive=True)
        assert started
        (os.killpg if end == signal.SIGINT else os.kill)(
            probing.pid, end
        )  # Ctrl-C goes to the group.
        assert probing.wait(60) == -end
        assert probing.stderr.read() == b""
    assert not psutil.wait_procs(started, 30)[1]


def test_a_worker_that_hangs_is_ended_and_said(tmp_path: Path) -> None:
    write(tmp_path / "setproctitle.py", HANGS)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", ON_A_MAC, "1"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environ, timeout=60
    )
    assert done.returncode == 1
    assert "without the shim   0 killed (1 hung, 2 not forked)" in done.stdout


def test_a_crash_report_of_a_worker_that_probe_made_die_is_known() -> None:
    assert probe_module.caused(probe_module.WORKER)
    assert probe_module.caused(
        f"Thread 0 Crashed:: {probe_module.WORKER}  Dispatch queue: com.apple.main-thread"
    )
    assert not probe_module.caused("")
    assert not probe_module.caused("Thread 0 Crashed::  Dispatch queue: com.apple.main-thread")


def test_without_ps_titles_mode_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, "titles")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["probe"]) == 1
    assert "'ps'" in capfd.readouterr().out
