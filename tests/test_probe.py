"""`probe` tells how forked children end, without the shim and with it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import psutil
import pytest
from environments import ROOT, SWITCH, Venv, uv
from processes import wait_for

from airflow_setproctitle_shim.diagnosis import cli, probe

SHIM = "airflow_setproctitle_shim"

# The handlers are set because a shell's background jobs ignore SIGINT, and those of nohup SIGHUP.
ON_MACOS = f"""
import signal, sys
sys.platform = "darwin"
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from {SHIM}.diagnosis.cli import main
sys.exit(main())
"""


def settings(**changes: Any) -> dict[str, Any]:
    given = {"timeout": 30, "threads": 0, "titles": False, "simulate": True}
    return {**given, **changes}


@pytest.mark.parametrize("threads", [0, 4])
def test_forked_children_die_without_the_shim_and_none_does_with_it(threads: int) -> None:
    off, on = probe.probe(25, **settings(threads=threads))
    assert (off.ends, off.served) == ({"SIGSEGV": 25}, False)
    assert (on.ends, on.served) == ({"ok": 25}, True)


NEEDS_3_10 = pytest.mark.skipif(sys.version_info < (3, 10), reason="processtitle needs Python 3.10")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A setproctitle module on PYTHONPATH, in place of the stand-in."""
    path = tmp_path / "setproctitle.py"
    path.write_text(
        "title = ''\ndef setproctitle(new): global title; title = new\ndef getproctitle(): return title\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_threads_run_while_children_are_forked(module: Path) -> None:
    module.write_text(
        "import os, pathlib\n"
        "def setproctitle(title):\n"
        "    tasks = os.listdir(f'/proc/{os.getppid()}/task')\n"
        "    pathlib.Path(__file__).with_name('tasks').write_text(str(len(tasks)))\n"
        "def getproctitle(): return 'probe: worker 1'\n"
    )
    assert probe.run("off", 1, settings(simulate=False, threads=4)).ends == {"ok": 1}
    assert (module.parent / "tasks").read_text() == "5"


HANGS = """
import os, pathlib, time
def setproctitle(title):
    pathlib.Path(__file__).with_name(f"{os.getpid()}.pid").touch()
    while True:
        time.sleep(60)
def getproctitle():
    return ""
"""


def test_a_hanging_child_is_counted_as_hung_and_killed(module: Path) -> None:
    module.write_text(HANGS)
    run = probe.run("off", 3, settings(simulate=False, timeout=2))
    assert run.ends == {"hung": 3}
    assert run.lost == 0
    pids = [int(path.stem) for path in module.parent.glob("*.pid")]
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_that_leaves_is_told_from_one_that_dies(module: Path) -> None:
    module.write_text("import os\ndef setproctitle(title): os._exit(3)\ndef getproctitle(): pass\n")
    assert probe.run("off", 3, settings(simulate=False)).ends == {"exit 3": 3}


@NEEDS_3_10
def test_the_titles_are_read_from_outside_by_ps() -> None:
    off, on = probe.probe(3, **settings(titles=True))
    assert off.listing == []
    assert sorted(line.split(maxsplit=1)[1] for line in on.listing) == [
        f"probe: worker {n}" for n in (1, 2, 3)
    ]


@NEEDS_3_10
def test_a_ps_that_fails_is_an_error_of_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ps").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "ps").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    _, on = probe.probe(1, **settings(titles=True))
    assert on.ends == {"exit 1": 1}


def test_without_ps_titles_cannot_be_probed_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["probe", "--titles"]) == 1
    assert "--titles needs the program ps" in capsys.readouterr().err


def test_without_processtitle_titles_cannot_be_probed_and_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("airflow_setproctitle_shim.diagnosis.probe.version", lambda name: "")
    assert cli.main(["probe", "--titles"]) == 1
    # Where uv made the environment, there may be no pip.
    assert re.search(
        r"pip install .*--upgrade 'airflow-setproctitle-shim\[titles\]'", capsys.readouterr().err
    )


def test_without_setproctitle_there_is_nothing_to_probe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("airflow_setproctitle_shim.diagnosis.probe.version", lambda name: "")
    assert cli.main(["probe"]) == 1
    assert "try: probe --simulate" in capsys.readouterr().err


def test_an_interpreter_that_fails_is_an_error_and_says_why(
    module: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module.write_text("raise ImportError('no luck')\n")
    with pytest.raises(ChildProcessError, match="what it said stands above"):
        probe.run("off", 3, settings(simulate=False))
    assert "ImportError: no luck" in capfd.readouterr().err


def test_children_are_forked_whatever_the_program_starts_processes_by(module: Path) -> None:
    module.write_text(
        "import multiprocessing, os\n"
        "multiprocessing.set_start_method('spawn', force=True)\n"
        "imported_by = os.getpid()\n"
        "def setproctitle(title): os._exit(3 if os.getpid() != imported_by else 4)\n"
        "def getproctitle(): pass\n"
    )
    assert probe.run("off", 1, settings(simulate=False)).ends == {"exit 3": 1}


def test_modules_are_found_by_the_paths_of_the_one_who_asks(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (module.parent / "sub").mkdir()
    (module.parent / "sub/setproctitle.py").write_text(
        "import os\ndef setproctitle(title): os._exit(3)\ndef getproctitle(): pass\n"
    )
    monkeypatch.chdir(module.parent)
    monkeypatch.setenv("PYTHONPATH", f"other{os.pathsep}{os.pathsep}sub")
    assert probe.run("off", 1, settings(simulate=False)).ends == {"exit 3": 1}


@pytest.mark.parametrize(
    ("children", "timeout", "seconds"), [(1, 1, 32), (20, 30, 90), (21, 30, 150), (60, 100, 630)]
)
@pytest.mark.parametrize("gone", [ProcessLookupError, PermissionError])
def test_an_interpreter_that_hangs_is_not_waited_for_longer_than_its_children_may_take(
    monkeypatch: pytest.MonkeyPatch, children: int, timeout: int, seconds: int, gone: type[OSError]
) -> None:
    class Hung(contextlib.nullcontext[None]):
        pid = 2**31

        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__()
            assert options["stdin"] == subprocess.DEVNULL

        def __enter__(self) -> Any:
            return self

        def communicate(self, timeout: float) -> NoReturn:
            assert timeout == seconds
            raise subprocess.TimeoutExpired("python", timeout)

    def killpg(group: int, number: int) -> None:
        assert (group, number) == (2**31, signal.SIGKILL)
        raise gone

    monkeypatch.setattr(probe, "Popen", Hung)
    monkeypatch.setattr(os, "killpg", killpg)
    with pytest.raises(ChildProcessError, match=f"^the interpreter that forks hung for {seconds} s$"):
        probe.run("off", children, settings(timeout=timeout))


@pytest.mark.parametrize(
    ("titles", "setting"), [(False, "auto"), pytest.param(True, "titles", marks=NEEDS_3_10)]
)
def test_the_second_run_has_the_shim_on(titles: bool, setting: str) -> None:
    off, on = probe.probe(1, **settings(titles=titles))
    assert (off.setting, on.setting) == ("off", setting)


def test_ends_are_told_with_their_numbers() -> None:
    run = with_ends(True, **{"SIGSEGV": 2, "ok": 1, "exit 1": 1, "SIGABRT": 3})
    assert str(run) == "5 of 7 children lost (3 SIGABRT, 2 SIGSEGV, 1 exit 1)"
    assert str(with_ends(ok=2)) == "0 of 2 children lost"


def with_ends(served: bool = True, **ends: int) -> probe.Run:
    return probe.Run("auto", sum(ends.values()), served, True, ends, [])


@pytest.mark.parametrize(
    ("off", "on", "ok", "sentence"),
    [
        (with_ends(SIGSEGV=2), with_ends(ok=2), True, "The shim saved every child."),
        (with_ends(SIGSEGV=1, ok=1), with_ends(ok=2), True, "The shim saved every child."),
        (with_ends(SIGSEGV=2), with_ends(SIGABRT=1, ok=1), False, "The shim did NOT save every child."),
        (
            with_ends(ok=2),
            with_ends(ok=2),
            True,
            "No child died, with or without the shim: this run proves nothing.",
        ),
        (
            with_ends(SIGSEGV=2),
            with_ends(served=False, SIGSEGV=2),
            False,
            "The shim is not on here. See why: ",
        ),
        (
            with_ends(hung=1, SIGSEGV=1),
            with_ends(ok=2),
            False,
            "The probe failed: 1 ended neither well nor by a signal",
        ),
        (
            with_ends(True, **{"exit 1": 2}),
            with_ends(True, **{"exit 1": 1}),
            False,
            "The probe failed: 3 ended",
        ),
    ],
    ids=["saved", "some", "not saved", "proves nothing", "off", "hung", "exit"],
)
def test_each_outcome_has_its_verdict(off: probe.Run, on: probe.Run, ok: bool, sentence: str) -> None:
    assert probe.verdict(off, on)[0] is ok
    assert probe.verdict(off, on)[1].startswith(sentence)


@pytest.mark.parametrize(("option", "threads"), [(["--threads"], 5), ([], 1)])
def test_with_threads_there_are_four_more_when_children_are_forked(
    module: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    threads: int,
) -> None:
    """The process that forks is asked by its children: each thread of it is a directory below /proc."""
    module.write_text(
        "import os\ndef setproctitle(title): os._exit(len(os.listdir(f'/proc/{os.getppid()}/task')))\n"
        "def getproctitle(): pass\n"
    )
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cli.main(["probe", "-n", "3", "--json", *option]) == 1
    assert json.loads(capsys.readouterr().out)["without"]["ends"] == {f"exit {threads}": 3}


def test_a_startup_file_that_is_gone_is_not_overlooked(fresh_venv: Venv) -> None:
    """Off macOS too, the probe runs the startup file that is installed."""
    whole = fresh_venv.run("-m", SHIM, "probe", "-n", "2")
    assert whole.stdout.splitlines()[-1] == "The shim saved every child."
    assert "not tested" not in whole.stdout
    (fresh_venv.site_packages / f"{SHIM}.pth").unlink()
    gone = fresh_venv.run("-m", SHIM, "probe", "-n", "2", check=False)
    assert gone.returncode == 1
    assert gone.stdout.splitlines()[-1].startswith("The shim is not on here. See why: ")


def test_in_an_environment_where_nobody_uses_setproctitle_that_is_said(
    make_venv: Callable[..., Venv],
) -> None:
    alone = make_venv().run("-m", SHIM, "probe", "-n", "2")
    assert alone.stdout.splitlines()[-2:] == [
        "nothing installed here uses setproctitle: is this the environment your workers run in?",
        "The shim saved every child.",
    ]


def test_where_site_reads_no_startup_file_it_is_said_not_to_be_tested(tmp_path: Path, wheel: Path) -> None:
    venv = Venv.make(tmp_path / "venv")
    target = tmp_path / "target"
    uv("pip", "install", "--quiet", "--python", str(venv.python), "--target", str(target), str(wheel))
    done = venv.run("-m", SHIM, "probe", "-n", "2", PYTHONPATH=str(target))
    sentence, _, verdict = done.stdout.splitlines()[-3:]
    assert sentence == f"The startup file itself was not tested: run {venv.python} -m {SHIM} status"
    assert verdict == "The shim saved every child."


def test_a_module_in_the_working_directory_is_no_crash_that_the_shim_saves_from(
    module: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text("def setproctitle(title): raise SystemExit(1)\ndef getproctitle(): pass\n")
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.chdir(module.parent)
    assert cli.main(["probe", "-n", "2"]) == 0
    assert "2 of 2 children lost (2 SIGSEGV)" in capsys.readouterr().out


def test_children_that_end_by_themselves_are_an_error_of_the_probe(
    module: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    module.write_text("def setproctitle(title): raise OSError('no luck')\ndef getproctitle(): pass\n")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cli.main(["probe", "-n", "1"]) == 1
    told = capfd.readouterr()
    assert told.out.splitlines()[-1].startswith("The probe failed: 2 ended")
    assert told.err.count("OSError: no luck") == 2


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_the_probe_ends_no_process_and_no_file_is_left(
    module: Path, tmp_path: Path, end: signal.Signals
) -> None:
    module.write_text(HANGS)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {**os.environ, "PYTHONPATH": str(module.parent), "TMPDIR": str(scratch), SWITCH: ""}
    command = [sys.executable, "-c", ON_MACOS, "probe", "-n", "3", "--timeout", "10"]
    probing = psutil.Popen(command, env=environ, start_new_session=True, stderr=subprocess.PIPE)
    with probing:
        wait_for("three children", lambda: len(list(module.parent.glob("*.pid"))) == 3, 60)
        started = probing.children(recursive=True)
        assert len(started) > 3
        probing.send_signal(end)
        probing.wait(60)
        error = probing.stderr.read().decode()
    _, alive = psutil.wait_procs(started, 30)
    assert not alive
    wait_for("an empty directory", lambda: not list(scratch.iterdir()), 30)
    assert "Traceback" not in error
    assert probing.returncode == (-end if end == signal.SIGKILL else 130)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_interpreter_that_hangs_before_it_forks_is_ended_with_the_probe(
    module: Path, end: signal.Signals
) -> None:
    module.write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('hangs').touch()\ntime.sleep(600)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(module.parent), SWITCH: ""}
    with psutil.Popen(
        [sys.executable, "-c", ON_MACOS, "probe"], env=environ, stderr=subprocess.PIPE
    ) as probing:
        wait_for("the import", module.with_name("hangs").exists, 60)
        [started] = probing.children()
        probing.send_signal(end)
        assert probing.wait(60) == 130
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE


def test_people_read_counts_per_signal_and_a_verdict(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["probe", "-n", "2"]) == 0
    told = capfd.readouterr()
    lines = told.out.splitlines()
    assert told.err == ""
    assert "  without the shim: 2 of 2 children lost (2 SIGSEGV)" in lines
    assert "  with the shim:    0 of 2 children lost" in lines
    assert lines[-1] == "The shim saved every child."


def test_a_shim_that_is_not_on_is_a_failure_that_names_the_next_command(
    module: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cli.main(["probe", "-n", "1"]) == 1
    assert f"{sys.executable} -m airflow_setproctitle_shim status" in capsys.readouterr().out


@pytest.mark.parametrize("titles", [[], pytest.param(["--titles"], marks=NEEDS_3_10)])
def test_json_follows_the_schema(titles: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "--json", "-n", "2", *titles]) == 0
    data = json.loads(capsys.readouterr().out)
    jsonschema.validate(data, json.loads((ROOT / "docs/json-schema/probe.json").read_text()))
    assert data["schema"] == "probe/2"
    assert data["without"]["ends"] == {"SIGSEGV": 2}
    assert data["with"]["ends"] == {"ok": 2}
