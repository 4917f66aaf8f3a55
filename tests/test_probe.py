"""`probe` tells how forked workers end, without the shim and with it, in the user's own environment."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.environments import STAND_IN, SWITCH, Venv, clean_environ, write
from support.processes import wait_for

from airflow_setproctitle_shim.diagnosis import cli, environment
from airflow_setproctitle_shim.diagnosis import probe as probe_module

SHIM = "airflow_setproctitle_shim"
NEEDS_3_10 = pytest.mark.skipif(sys.version_info < (3, 10), reason="processtitle needs Python 3.10")
ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# Programs that stand where setproctitle is imported from.
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
HANGS = """
import contextlib, pathlib, time
def setproctitle(title):
    pathlib.Path(__file__).with_name("begun").touch()
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # as native code does
            time.sleep(60)
getproctitle = str
"""
KEEPS_NOTHING = """
import os
def setproctitle(title): pass
def getproctitle(): return os.environ["SAYS"]
"""
TELLS = """
import pathlib, resource
def setproctitle(new):
    global title
    title = new
    tell = pathlib.Path(__file__).with_name
    tell("comm").write_text(pathlib.Path("/proc/self/comm").read_text())
    tell("core").write_text(str(resource.getrlimit(resource.RLIMIT_CORE)[0]))
def getproctitle():
    return title
"""

# What stands in users' environments, too.
AT_FORK = "import os, signal, time; os.register_at_fork(after_in_child=lambda: {})"
NOISY = """
import atexit, os, pathlib, threading, time, warnings
print("hello")
atexit.register(print, "good-bye")
atexit.register(pathlib.Path(__file__).with_name("waited for").touch)
os.register_at_fork(after_in_child=lambda: print("a child"))
os.register_at_fork(before=lambda: warnings.warn("a fork"))
threading.Thread(target=time.sleep, args=[20]).start()
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


def probed(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the JSON."""
    status = cli.main(["probe", "--json", *arguments])
    return status, json.loads(capfd.readouterr().out)


# A shell's background jobs, and nohup's, ignore signals.
ON_A_MAC = f"""
import signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from {SHIM}.diagnosis import cli, environment, probe
sys.platform, environment.version = "darwin", lambda name: "1.3.8"
probe.SECONDS = int(sys.argv[1])
sys.exit(cli.main(["probe", *sys.argv[2:]]))
"""

OnAMac = Callable[..., "tuple[int, dict[str, Any]]"]


@pytest.fixture
def on_a_mac(make_venv: Callable[..., Venv], tmp_path: Path) -> OnAMac:
    """Return a function that runs `probe --json` where it is not simulated and the shim is on.

    `setproctitle` is what the native one is played by, `seconds` how long a worker may take.
    """

    def run(
        setproctitle: str, *arguments: str, seconds: int = 60, **variables: str
    ) -> tuple[int, dict[str, Any]]:
        write(tmp_path / "setproctitle.py", setproctitle)
        command = ["-c", ON_A_MAC, str(seconds), "--json", *arguments]
        venv = make_venv("setproctitle")
        done = venv.run(*command, check=False, PYTHONPATH=str(tmp_path), **variables)
        return done.returncode, json.loads(done.stdout)

    return run


# --- what the runs show


def test_workers_die_without_the_shim_and_none_does_with_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status, data, text = probe(capfd, "-n", "25")
    assert status == 0 and data["simulated"] and "SIMULATED" in text.splitlines()[0]
    without, with_shim = data["without"], data["with"]
    assert (without["killed"], without["ends"], without["served"]) == (25, {"SIGSEGV": 25}, False)
    assert (with_shim["killed"], with_shim["ends"], with_shim["served"]) == (0, {"ok": 25}, True)
    assert data["says"] in text and data["note"] == ""


@pytest.mark.parametrize("value", ["off", "0", " Disable "])
def test_off_in_the_environment_is_said(
    value: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, value)
    status, data = probed(capfd, "-n", "1")
    assert status == 1 and data["with"]["served"] and data["with"]["killed"] == 0
    assert "the shim works, but" in data["says"] and data["fix"] == f"unset {SWITCH}"


def test_a_worker_that_hangs_without_the_shim_is_harm_and_is_ended(on_a_mac: OnAMac) -> None:
    status, data = on_a_mac(HANGS, "-n", "3", seconds=1)
    assert (status, data["says"]) == (0, "OK: the shim works.")
    assert data["without"]["ends"] == {"hung": 1} and data["with"]["ends"] == {"ok": 3}
    assert data["note"] == ""  # What hangs leaves no crash report.


def test_that_not_all_workers_were_forked_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "sitecustomize.py", AT_FORK.format("time.sleep(3600)"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(probe_module, "SECONDS", 1)
    assert cli.main(["probe", "-n", "3"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("Up to 3 workers forked, twice")
    assert lines[1] == "  without the shim   0 killed (1 hung, 2 not forked)"
    assert lines[-1].startswith("  fix   ")


def test_a_worker_that_hangs_with_the_shim_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # It hangs inside fork(), where no code of the worker has run yet.
    write(tmp_path / "sitecustomize.py", AT_FORK.format("time.sleep(3600)"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(probe_module, "SECONDS", 1)
    status, data = probed(capfd)
    assert status == 1 and data["with"]["ends"] == {"hung": 1} and data["with"]["served"]
    assert "with the shim a worker hung" in data["says"]


def test_workers_that_die_with_the_shim_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "sitecustomize.py", AT_FORK.format("os.kill(os.getpid(), signal.SIGBUS)"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, data = probed(capfd, "-n", "2")
    assert status == 1 and data["with"]["ends"] == {"SIGBUS": 2} and data["with"]["served"]
    assert data["says"] == "NOT OK: with the shim 2 workers died."
    assert data["fix"].endswith("doctor")


def test_that_the_shim_is_not_on_is_said_and_why(fresh_venv: Venv) -> None:
    (fresh_venv.site_packages / f"{SHIM}.pth").unlink()
    done = fresh_venv.run("-m", SHIM, "probe", "--json", "-n", "1", check=False)
    data = json.loads(done.stdout)
    assert done.returncode == 1 and not data["with"]["served"]
    assert "the shim is not on here: the startup file is missing" in data["says"]
    assert "install" in data["fix"] and SHIM.replace("_", "-") in data["fix"]


def test_a_startup_file_that_python_does_not_read_is_not_run(
    fresh_venv: Venv, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "target"
    elsewhere.mkdir()
    for path in [*fresh_venv.site_packages.glob(f"{SHIM}*")]:
        path.rename(elsewhere / path.name)
    command = ("-m", SHIM, "probe", "--json", "-n", "1")
    done = fresh_venv.run(*command, check=False, PYTHONPATH=str(elsewhere))
    data = json.loads(done.stdout)
    assert done.returncode == 1 and not data["with"]["served"] and data["fix"]


@pytest.mark.parametrize("optimize", ["", "2"])
def test_workers_that_end_by_an_error_are_a_failure_and_it_is_quoted(
    optimize: str, on_a_mac: OnAMac
) -> None:
    status, data = on_a_mac(
        KEEPS_NOTHING, "-n", "2", SAYS="something else", PYTHONOPTIMIZE=optimize
    )
    assert status == 1 and data["without"]["ends"] == {"exit 1": 2}
    assert data["says"].startswith("FAILED: 2 workers ended by an error of their own: ValueError")
    assert "something else" in data["says"]


def test_that_no_worker_died_is_no_success(on_a_mac: OnAMac, tmp_path: Path) -> None:
    status, data = on_a_mac(SAFE, "-n", "3")
    assert status == 1 and not data["simulated"]
    assert data["with"]["served"] and data["without"]["killed"] == 0
    assert data["says"].startswith("NOT PROVED") and data["fix"].endswith("probe -n 30")
    # Real programs have other threads when they fork.
    assert (tmp_path / "in company").exists() and not (tmp_path / "alone").exists()


def test_without_a_native_setproctitle_it_simulates_on_a_mac_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(environment, "version", lambda name: "")
    _, data, text = probe(capfd, "-n", "2")
    assert data["simulated"] and "SIMULATED" in text and data["without"]["ends"] == {"SIGSEGV": 2}


PARENTS = {
    "the import fails": ("raise ImportError('no such luck')", "no such luck"),
    "the import dies": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "the import hangs": ("import time; time.sleep(30)", "it hung"),
}


@pytest.mark.parametrize(("module", "says"), PARENTS.values(), ids=PARENTS)
def test_what_becomes_of_the_workers_parent_is_said(
    module: str, says: str, on_a_mac: OnAMac
) -> None:
    # A program that probe is started from may ignore the signal that ends a hang.
    handler = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        status, data = on_a_mac(module, seconds=1)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert status == 1 and data["error"].startswith("the workers' parent failed: ")
    assert says in data["error"]


# --- titles


@NEEDS_3_10
def test_titles_are_shown_by_ps(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
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
    status, data = probed(capfd, "-n", "1")
    assert status == 1 and "processtitle" in data["fix"] and "titles" in data["says"]


def test_without_ps_titles_mode_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, "titles")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["probe"]) == 1
    assert "'ps'" in capfd.readouterr().out


# --- the user's own environment


@pytest.mark.parametrize("value", ["", pytest.param("titles", marks=NEEDS_3_10)])
def test_what_others_print_or_leave_running_does_not_disturb_it(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "path/sitecustomize.py", NOISY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setenv("PYTHONWARNINGS", "error")  # Python 3.12 warns of threads at a fork.
    monkeypatch.setenv(SWITCH, value)
    write(tmp_path / "json.py", "raise ImportError('from the working directory')")
    monkeypatch.chdir(tmp_path)
    status, data = probed(capfd, "-n", "2")
    assert (status, data["says"]) == (0, "OK: the shim works.")
    assert data["with"]["stderr"] == ""
    assert data["ps"] == ["probe: worker 1", "probe: worker 2"][: 2 * bool(value)]
    assert not (tmp_path / "path/waited for").exists()


@ON_LINUX
def test_no_worker_leaves_a_core_file(on_a_mac: OnAMac, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    if limits[1] == 0:
        pytest.skip("nobody may leave core files here")
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    try:
        on_a_mac(TELLS, "-n", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    assert (tmp_path / "core").read_text() == "0"


ENDS = {
    "Ctrl-C": (signal.SIGINT, HANGS, "3"),  # which goes to the whole group
    "SIGTERM": (signal.SIGTERM, HANGS, "3"),
    "SIGKILL": (signal.SIGKILL, HANGS, "3"),
    "SIGTERM while it forks": (signal.SIGTERM, SAFE, "10000"),
    "SIGKILL while it forks": (signal.SIGKILL, SAFE, "10000"),
}


@pytest.mark.parametrize(("end", "setproctitle", "workers"), ENDS.values(), ids=ENDS)
def test_however_the_probe_ends_no_process_is_left(
    end: signal.Signals, setproctitle: str, workers: str, tmp_path: Path
) -> None:
    psutil = pytest.importorskip("psutil", reason="needs psutil")
    write(tmp_path / "setproctitle.py", setproctitle)
    with psutil.Popen(
        [sys.executable, "-c", ON_A_MAC, "600", "-n", workers],
        env=clean_environ(PYTHONPATH=str(tmp_path)),
        start_new_session=True,
        stderr=subprocess.PIPE,
    ) as probing:
        begun = [tmp_path / "begun", tmp_path / "in company"]
        wait_for("a worker", lambda: any(file.exists() for file in begun), 60)
        started = probing.children(recursive=True)
        assert started
        (os.killpg if end == signal.SIGINT else os.kill)(probing.pid, end)
        assert probing.wait(60) == -end
        assert probing.stderr.read() == b""
    assert not psutil.wait_procs(started, 30)[1]


# --- macOS's crash reports of workers that were to die


def test_a_crash_report_of_a_worker_that_was_to_die_is_known() -> None:
    line = f"Thread 0 Crashed:: {probe_module.WORKER}  Dispatch queue: com.apple.main-thread"
    assert probe_module.caused(probe_module.WORKER) and probe_module.caused(line)
    assert not probe_module.caused("")
    assert not probe_module.caused("Thread 0 Crashed::  Dispatch queue: com.apple.main-thread")


@ON_LINUX
def test_a_worker_names_its_thread_unless_the_shim_is_on(on_a_mac: OnAMac, tmp_path: Path) -> None:
    _, data = on_a_mac(TELLS, "-n", "1")
    assert (data["without"]["named"], data["with"]["named"]) == (True, False)
    name = (tmp_path / "comm").read_text().strip()
    assert name == probe_module.WORKER[:15]  # as much as Linux keeps


APPLES = """
class CDLL:
    def __init__(self, name):
        assert name is None
    @staticmethod
    def pthread_setname_np(name):
        print("named", name, file=sys.stderr)
import sys
c_char_p = bytes
"""
DIES = (STAND_IN / "setproctitle/__init__.py").read_text(encoding="utf-8")


def test_a_worker_names_its_thread_by_macos_own_function(on_a_mac: OnAMac, tmp_path: Path) -> None:
    write(tmp_path / "ctypes.py", APPLES)
    status, data = on_a_mac(DIES, "-n", "2")
    assert status == 0 and data["without"]["stderr"] == f"named {probe_module.WORKER.encode()!r}"
    assert "crash reports of the 2 workers" in data["note"] and "does not count" in data["note"]


def test_it_says_where_crash_reports_will_count(on_a_mac: OnAMac, tmp_path: Path) -> None:
    write(tmp_path / "ctypes.py", "raise ImportError('no ctypes here')")
    status, data = on_a_mac(DIES, "-n", "2")
    assert status == 0 and not data["without"]["named"] and "counts them" in data["note"]
