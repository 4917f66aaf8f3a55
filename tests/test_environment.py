"""Facts are gathered as they are, from files of any size and content."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import types
from pathlib import Path

import pytest
from environments import Venv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_setproctitle_shim.diagnosis import environment


@pytest.mark.parametrize(
    ("info", "hidden"),
    [
        ({"st_mode": 0o100644, "st_flags": 0}, False),
        ({"st_mode": 0o100644, "st_flags": stat.UF_HIDDEN}, True),
        ({"st_mode": 0o100644, "st_flags": stat.UF_HIDDEN | stat.UF_NODUMP}, True),
        ({"st_mode": 0o100644, "st_flags": stat.UF_NODUMP}, False),
        ({"st_mode": 0o100644}, False),
    ],
    ids=["macOS, plain", "macOS, hidden", "macOS, hidden and more", "macOS, other flag", "Linux"],
)
def test_a_hidden_file_is_one_with_macoss_flag(info: dict[str, int], hidden: bool) -> None:
    assert environment.is_hidden(types.SimpleNamespace(**info)) is hidden  # type: ignore[arg-type]


def test_the_installation_time_is_when_record_was_written(fresh_venv: Venv) -> None:
    [record] = fresh_venv.site_packages.glob("airflow_setproctitle_shim-*/RECORD")
    os.utime(record, (1_600_000_000, 1_600_000_000))
    code = "from airflow_setproctitle_shim.diagnosis import environment; print(environment.installed_at())"
    assert fresh_venv.evaluate(code) == "1600000000.0"


def test_startup_files_are_found_owned_intact_and_where_site_looks(fresh_venv: Venv) -> None:
    code = "from airflow_setproctitle_shim.diagnosis.environment import startup_files as f; print(*f(), sep='\\n')"
    lines = fresh_venv.evaluate(code).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "exists=True, hidden=False, owned=True, intact=True, in_site_directory=True" in line


def test_only_regular_files_of_a_readable_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12345")
    assert environment.read(tmp_path / "file") == b"12345"
    monkeypatch.setattr(environment, "READABLE", 4)
    for path in (tmp_path / "pipe", tmp_path / "file", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=re.escape(str(path))):
            environment.read(path)


def test_a_hostile_finder_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "setproctitle":
                raise RuntimeError("no")

    monkeypatch.delitem(sys.modules, "setproctitle", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Hostile(), *sys.meta_path])
    assert environment.facts()["setproctitle"]["origin"] is None
    assert environment.facts()["finders"][0].endswith("Hostile")


LINES = st.lists(
    st.one_of(
        st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
        st.sampled_from(
            [
                b"scheduler | [2025-10-05 16:49:14 +0200] Worker (pid:1) was sent SIGSEGV!",
                b"Fatal Python error: Segmentation fault",
                b"x exited with 'signal 11 (SIGSEGV)'",
                b"\0\0SIGSEGV\0\xff SIGSEGV",
            ]
        ),
    ),
    max_size=30,
)


@given(lines=LINES, block=st.integers(1, 200), last=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_line_with_a_sign_is_seen_once_wherever_blocks_end(
    lines: list[bytes], block: int, last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "BLOCK", block)
    monkeypatch.setattr(environment, "LINE", block)
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(lines) + b"\n" * last)
    expected = [number for number, line in enumerate(lines, 1) if environment.SIGN.search(line)]
    found = list(environment.sightings(path, "file"))
    assert [int(seen.where.rpartition(":")[2]) for seen in found] == expected
    assert [seen.component for seen in found] == [
        "scheduler" if lines[number - 1].startswith(b"scheduler") else "file" for number in expected
    ]


@pytest.mark.parametrize("offset", range(-25, 5))
def test_a_sign_in_a_line_without_end_is_seen_once_wherever_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    monkeypatch.setattr(environment, "BLOCK", 50)
    monkeypatch.setattr(environment, "LINE", 50)
    monkeypatch.setattr(environment, "OVERLAP", 20)
    path = tmp_path / "log"
    path.write_bytes(b"\xff" * (200 + offset) + b"was sent SIGSEGV!" + b"\xff" * 500)
    assert len(list(environment.sightings(path, "file"))) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("[2025-10-05 16:49:14 +0200] x was sent SIGSEGV!", 1759675754),
        ("[2025-10-05T16:49:14.123+0200] x was sent SIGSEGV!", 1759675754),
        ('{"timestamp": "2025-10-05T14:49:14.123456Z", "event": "SIGSEGV"}', 1759675754),
        ("[2025-10-05 14:49:14,123: ERROR/MainProcess] exited with 'signal 11 (SIGSEGV)'", 1759675754),
        ("[2025-10-05 14:49:14 +0000] x\nFatal Python error: Segmentation fault", 1759675754),
        ("[2025-13-05 14:49:14 +0000] x was sent SIGSEGV!", 1_000_000_000),
        ("x was sent SIGSEGV!", 1_000_000_000),
    ],
    ids=["gunicorn", "Airflow 2", "Airflow 3", "Celery", "dump", "no date", "no time"],
)
def test_the_time_of_a_line_is_read_in_every_logs_way(tmp_path: Path, text: str, seconds: float) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    code = (
        "import pathlib, sys; from airflow_setproctitle_shim.diagnosis.environment import sightings;"
        "print(*(seen.when for seen in sightings(pathlib.Path(sys.argv[1]), '')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [float(word) for word in done.stdout.split()] == [seconds]


PEAK = """
import pathlib, resource, sys
from airflow_setproctitle_shim.diagnosis import environment
found = sum(1 for _ in environment.sightings(pathlib.Path(sys.argv[1]), ""))
print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_log_of_a_gibibyte_is_read_in_the_memory_of_an_empty_one(tmp_path: Path) -> None:
    def peak(path: Path) -> tuple[int, int]:
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
        )
        found, mebibytes = map(int, done.stdout.split())
        return found, mebibytes

    empty, large = tmp_path / "empty.log", tmp_path / "large.log"
    empty.touch()
    with large.open("wb") as file:
        file.write(b"SIGSEGV\n")
        file.seek(2**29)  # half a gibibyte of zeros: one line
        file.write(b"\nSIGSEGV\n")
        noise = os.urandom(2**20).replace(b"\n", b"") + b"\nWorker (pid:1) was sent SIGSEGV!\n"
        for _ in range(2**9):
            file.write(noise)
    assert large.stat().st_size > 2**30 - 2**22
    _, small = peak(empty)
    found, mebibytes = peak(large)
    assert found == 2 + 2**9
    assert mebibytes < small + 16
