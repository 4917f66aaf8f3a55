"""`probe` tells how forked children end, without the shim and with it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from environments import ROOT

from airflow_setproctitle_shim.diagnosis import cli, probe


def simulated(**changes: Any) -> probe.Settings:
    settings = {"children": 3, "timeout": 30.0, "method": "fork", "threads": 0, "titles": False}
    return probe.Settings(**{**settings, "simulate": True, **changes})


@pytest.mark.parametrize("threads", [0, 4])
def test_forked_children_die_without_the_shim_and_none_does_with_it(threads: int) -> None:
    off, on = probe.probe(simulated(children=25, threads=threads))
    assert (off.ends, off.served) == ({"SIGSEGV": 25}, False)
    assert (on.ends, on.served) == ({"ok": 25}, True)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods_end_as_they_must(method: str) -> None:
    off, on = probe.probe(simulated(method=method))
    # A spawned child imports the module itself, and lives; the fork server's have it from their parent.
    assert off.ends == ({"ok": 3} if method == "spawn" else {"SIGSEGV": 3})
    assert on.ends == {"ok": 3}


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
    run = probe.run("off", simulated(simulate=False, timeout=2.0))
    assert run.ends == {"hung": 3}
    assert run.lost == 3
    pids = [int(path.stem) for path in module.parent.glob("*.pid")]
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_that_leaves_is_told_from_one_that_dies(module: Path) -> None:
    module.write_text("import os\ndef setproctitle(title): os._exit(3)\ndef getproctitle(): pass\n")
    assert probe.run("off", simulated(simulate=False)).ends == {"exit 3": 3}


@NEEDS_3_10
def test_the_titles_are_read_from_outside_by_ps() -> None:
    off, on = probe.probe(simulated(titles=True))
    assert off.listing == []
    assert [line.split(maxsplit=1)[1] for line in on.listing] == [f"probe: worker {n}" for n in (1, 2, 3)]


def test_without_ps_titles_cannot_be_probed_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["probe", "--titles"]) == 1
    assert "no `ps` here" in capsys.readouterr().err


def test_without_processtitle_titles_cannot_be_probed_and_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "installed", lambda name: None)
    assert cli.main(["probe", "--titles"]) == 1
    assert "pip install 'airflow-setproctitle-shim[titles]'" in capsys.readouterr().err


def test_without_setproctitle_there_is_nothing_to_probe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(probe, "installed", lambda name: None)
    assert cli.main(["probe"]) == 1
    assert "try: probe --simulate" in capsys.readouterr().err


def test_an_interpreter_that_fails_is_reported_by_its_last_line(module: Path) -> None:
    module.write_text("raise ImportError('no luck')\n")
    with pytest.raises(probe.ProbeError, match="ImportError: no luck"):
        probe.run("off", simulated(simulate=False))


def test_people_read_counts_per_signal_where_it_died_and_a_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["probe", "-n", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  without the shim: 2 of 2 children lost (2 SIGSEGV)" in lines
    assert "  with the shim:    0 of 2 children lost" in lines
    frames = lines[lines.index("where it died:") + 1 : -1]
    assert len(frames) == 3 and frames[0].endswith("in setproctitle")
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
    assert data["without"]["ends"] == {"SIGSEGV": 2}
    assert data["with"]["ends"] == {"ok": 2}
