"""The doctor's findings, each on the real thing or on what is shaped like it."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from consumers import harness
from consumers.declared import CONSUMERS
from environments import ROOT, SWITCH, Venv

from airflow_setproctitle_shim.diagnosis import doctor, environment

SHIM = "airflow_setproctitle_shim"


@pytest.fixture(autouse=True)
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own Airflow and switches are not looked at."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))


def findings(check: str, logs: Path = Path("/none"), crash_reports: Path = Path("/none")) -> list[Any]:
    """What one check finds."""
    return doctor.diagnose(doctor.Scope([logs], crash_reports), [check])


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- crashes -----------------------------------------------------------------------------------

# The first two lines are those of the bug report this package began with.
STANDALONE = """\
scheduler  | [2025-10-05 16:49:14 +0200] [95625] [ERROR] Worker (pid:96284) was sent SIGSEGV!
triggerer  | [2025-10-05 16:49:15 +0200] [95599] [ERROR] Worker (pid:96286) was sent SIGSEGV!
\x1b[1;34mscheduler \x1b[m | [2025-10-05 16:49:16 +0200] [95625] [ERROR] Worker (pid:96290) was sent SIGSEGV!
webserver  | Fatal Python error: Segmentation fault
webserver  | Current thread 0x000000020a774800 (most recent call first):
scheduler  | all is well
"""
BEFORE_ALL, AFTER_ALL = 1.0, 4e9


@pytest.fixture(scope="session")
def gunicorn_log(make_venv: Callable[..., Venv], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The log of a real gunicorn whose workers die in the stand-in, the shim being off."""
    consumer = CONSUMERS[0]
    venv = make_venv(*consumer.requirements, exclude_newer=consumer.exclude_newer)
    outcome = harness.run(consumer, venv, tmp_path_factory.mktemp("gunicorn") / "run", shim="off")
    assert outcome.deaths
    return outcome.log


def test_deaths_in_a_real_gunicorns_log_are_counted_once_each(gunicorn_log: bytes, tmp_path: Path) -> None:
    write(tmp_path / "gunicorn.log", gunicorn_log)
    lines, dumps = gunicorn_log.count(b"was sent SIGSEGV!"), gunicorn_log.count(b"Fatal Python error: Seg")
    [finding] = findings("crashes", logs=tmp_path)
    assert finding.severity == "error"
    assert finding.evidence.startswith(f"{max(lines, dumps)} deaths by SIGSEGV since")
    line = gunicorn_log[: gunicorn_log.index(b"was sent SIGSEGV!")].count(b"\n") + 1
    assert finding.details[0].endswith(f"{tmp_path / 'gunicorn.log'}:{line}")


def test_deaths_are_counted_by_the_component_that_the_line_names(tmp_path: Path) -> None:
    path = write(tmp_path / "standalone.log", STANDALONE)
    [finding] = findings("crashes", logs=tmp_path)
    assert [detail.partition(" before")[0] for detail in finding.details] == [
        "scheduler: 2",
        "triggerer: 1",
        "webserver: 1",
    ]
    assert finding.details[2].endswith(f"{path}:4")


@pytest.mark.parametrize(
    "line",
    [
        "Process 'ForkPoolWorker-8' pid:4711 exited with 'signal 11 (SIGSEGV)'",
        "[4711] [WARNING] Worker with pid 4712 was terminated due to signal 11",
        "{local_task_job_runner.py:266} INFO - Task exited with return code Negsignal.SIGSEGV",
    ],
)
def test_other_ways_to_tell_of_the_same_death_count(line: str, tmp_path: Path) -> None:
    write(tmp_path / "celery.log", f"quiet\n{line}\n")
    [finding] = findings("crashes", logs=tmp_path)
    assert "celery: 0 before, 1 since" in finding.details[0]


def test_a_directory_of_logs_is_a_component_and_links_and_pipes_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "scheduler/2025-10-05/work.py.log", "was sent SIGSEGV!\n")
    (tmp_path / "scheduler/latest").symlink_to("2025-10-05")
    (tmp_path / "scheduler/again.log").symlink_to("2025-10-05/work.py.log")
    os.mkfifo(tmp_path / "pipe.log")
    [finding] = findings("crashes", logs=tmp_path)
    assert [detail.partition(";")[0] for detail in finding.details] == ["scheduler: 0 before, 1 since"]


@pytest.mark.parametrize(
    ("installed", "severity", "evidence"),
    [
        (BEFORE_ALL, "error", "4 deaths by SIGSEGV since the shim was installed, 0 before"),
        (1759675755.0, "error", "3 deaths by SIGSEGV since the shim was installed, 1 before"),
        (AFTER_ALL, "note", "0 deaths by SIGSEGV since the shim was installed, 4 before"),
    ],
    ids=["before", "between", "after"],
)
def test_deaths_before_and_after_the_installation_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: float, severity: str, evidence: str
) -> None:
    monkeypatch.setattr(environment, "installed_at", lambda: installed)
    write(tmp_path / "standalone.log", STANDALONE)
    [finding] = findings("crashes", logs=tmp_path)
    assert (finding.severity, finding.evidence) == (severity, evidence)


def test_deaths_while_switched_off_are_answered_with_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "off")
    monkeypatch.setattr(environment, "installed_at", lambda: BEFORE_ALL)
    write(tmp_path / "standalone.log", STANDALONE)
    [finding] = findings("crashes", logs=tmp_path)
    assert finding.remedy == f"unset {SWITCH}; then restart Airflow"


def test_by_default_the_logs_of_airflows_home_are_read(tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    write(home / "logs/scheduler/a.log", "")
    write(home / "standalone.log", "")
    write(home / "airflow.db", "")
    assert doctor.default_logs() == [home / "logs", home / "standalone.log"]


def test_a_log_folder_that_is_configured_is_read(tmp_path: Path) -> None:
    write(tmp_path / "airflow/airflow.cfg", "[logging]\nbase_log_folder = ~/elsewhere\n")
    assert doctor.default_logs() == [Path.home() / "elsewhere"]


def test_a_log_that_cannot_be_read_is_told_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.log", "was sent SIGSEGV!\n")
    read = environment.sightings

    def refuse_a(path: Path, component: str) -> Iterator[environment.Sighting]:
        if path.stem == "a":  # Tests may run as root, whom no permission stops.
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, component)

    monkeypatch.setattr(environment, "sightings", refuse_a)
    deaths, unread = findings("crashes", logs=tmp_path)
    assert deaths.evidence.startswith("1 death")
    assert unread.evidence == "1 log could not be read"
    assert str(tmp_path / "a.log") in unread.details[0]


def test_quiet_logs_are_no_finding(tmp_path: Path) -> None:
    write(tmp_path / "a.log", "all is well\n")
    assert findings("crashes", logs=tmp_path) == []


@pytest.mark.slow
def test_in_a_real_airflows_log_each_component_has_its_deaths(
    make_venv: Callable[..., Venv], tmp_path: Path
) -> None:
    consumer = next(c for c in CONSUMERS if c.version == "3.0.2")
    # Without it Airflow 3.0 logs nothing of a worker's death.
    consumer = dataclasses.replace(consumer, environ={"PYTHONFAULTHANDLER": "1"})
    venv = make_venv(*consumer.requirements, exclude_newer=consumer.exclude_newer)
    outcome = harness.run(consumer, venv, tmp_path / "run", shim="off")
    (tmp_path / "run/log.txt").rename(tmp_path / "run/standalone.log")
    done = venv.run("-m", SHIM, "doctor", check=False, AIRFLOW_HOME=str(tmp_path / "run"), **{SWITCH: "off"})
    assert done.returncode == 1
    head = done.stdout.splitlines()[:10]
    assert head[0].startswith(f"error: {outcome.deaths} deaths by SIGSEGV since")
    assert f"  -> unset {SWITCH}; then restart Airflow" in head
    scheduler = outcome.log.count(b"scheduler  | Fatal Python error: Segmentation fault")
    assert scheduler
    assert any(line.strip().startswith(f"scheduler: 0 before, {scheduler} since") for line in head)


# --- imports -----------------------------------------------------------------------------------

UNGUARDED = """
import setproctitle
from setproctitle import setproctitle as set_title
import importlib; importlib.import_module("setproctitle")
def late():
    try:
        __import__("setproctitle")
    except ImportError:
        pass
"""
GUARDED = """
import sys
if sys.platform == "darwin":
    pass
else:
    from setproctitle import setproctitle
if sys.platform != "darwin":
    import setproctitle
if not sys.platform.startswith("darwin"):
    import setproctitle
"""
INNOCENT = (
    "# setproctitle\nfrom .setproctitle import x\nimport setproctitle2\nsetproctitle = 'setproctitle'\n"
)


def distribution(site: Path, name: str, files: dict[str, bytes], version: str = "1.0") -> Path:
    """Install a distribution with these files by hand; return its metadata's directory."""
    for file, content in files.items():
        write(site / file, content)
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    write(metadata / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    write(metadata / "RECORD", "".join(f"{file},,\n" for file in files))
    return metadata


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory at the head of sys.path."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    return path


def places(package: str) -> list[tuple[str, int, bool]]:
    found, _ = environment.imports_of_setproctitle(lambda _: None)
    return [(Path(p.path).name, p.line, p.guarded) for p in found if p.package == package]


def test_imports_are_found_where_they_stand_and_told_from_guarded_ones(site: Path) -> None:
    files = {"un.py": UNGUARDED.encode(), "guarded.py": GUARDED.encode(), "innocent.py": INNOCENT.encode()}
    distribution(site, "consumer", files)
    assert places("consumer") == [
        ("un.py", 2, False),
        ("un.py", 3, False),
        ("un.py", 4, False),
        ("un.py", 7, False),
        ("guarded.py", 6, True),
        ("guarded.py", 8, True),
        ("guarded.py", 10, True),
    ]


def test_files_that_cannot_be_read_or_parsed_are_skipped_and_counted(site: Path) -> None:
    before = environment.imports_of_setproctitle(lambda _: None)[1]
    hostile = {
        "latin.py": b"import setproctitle; x = '\xe9'\n",
        "syntax.py": b"import setproctitle (\n",
        "null.py": b"import setproctitle\0\n",
        "deep.py": b"import setproctitle\nx = " + b"(" * 5000 + b")" * 5000,
        "deeper.py": b"import setproctitle\nx = " + b"-" * 90000 + b"1\n",
        "good.py": b"# -*- coding: latin-1 -*-\nimport setproctitle  # \xe9\n",
    }
    metadata = distribution(site, "hostile", hostile)
    (site / "directory.py").mkdir()
    os.mkfifo(site / "pipe.py")
    with (metadata / "RECORD").open("a") as record:
        record.write("directory.py,,\npipe.py,,\n../../../../../../dev/zero,,\n")
    found, skipped = environment.imports_of_setproctitle(lambda _: None)
    assert [Path(p.path).name for p in found if p.package == "hostile"] == ["good.py"]
    assert skipped - before == 7


def test_broken_metadata_of_others_hides_nothing(site: Path) -> None:
    write(site / "nameless-1.0.dist-info/METADATA", "")
    (site / "empty-1.0.dist-info").mkdir()
    write(distribution(site, "crooked", {"a.py": b""}) / "RECORD", "a.py,sha256=x,1,2,3,4\n")
    write(site / "binary-1.0.dist-info/METADATA", b"\xff\xfe\0Name: \xff\n")
    distribution(site, "good", {"good.py": b"import setproctitle\n"})
    assert places("good") == [("good.py", 1, False)]
    assert environment.python_files(environment.packages()["crooked"]) == []


NEEDS_3_10 = pytest.mark.skipif(sys.version_info < (3, 10), reason="gunicorn 25 needs Python 3.10")


@pytest.mark.parametrize(
    ("version", "guarded"), [("23.0.0", False), pytest.param("25.0.0", True, marks=NEEDS_3_10)]
)
def test_gunicorns_import_is_found_until_gunicorn_guarded_it(
    make_venv: Callable[..., Venv], version: str, guarded: bool
) -> None:
    venv = make_venv(f"gunicorn=={version}", exclude_newer=None)
    done = venv.run("-m", SHIM, "doctor", "--only", "imports", "--json")
    found = json.loads(done.stdout)["findings"]
    util = venv.site_packages / "gunicorn/util.py"
    line = util.read_text()[: util.read_text().index("from setproctitle")].count("\n") + 1
    assert [finding["details"] for finding in found] == ([] if guarded else [[f"{util}:{line}"]])


# --- edited by hand ----------------------------------------------------------------------------

PATCHED = """\
# Patch for macOS: setproctitle causes SIGSEGV crashes on macOS due to fork() + native extensions
# See: https://github.com/benoitc/gunicorn/issues/3021
try:
    from setproctitle import setproctitle
except ImportError:
    def setproctitle(title):
        pass  # No-op if setproctitle is not available
"""


@pytest.mark.slow
def test_an_airflow_patched_by_the_old_recipe_is_recognised_and_mended_by_what_the_doctor_says(
    tmp_path: Path, wheel: Path
) -> None:
    venv = Venv.make(tmp_path / "venv")
    era = ("--link-mode", "copy", "--exclude-newer", "2025-07-15")
    venv.install(*era, "apache-airflow==3.0.2")
    venv.install(str(wheel))
    doctors = ("-m", SHIM, "doctor", "--only", "edited", "--only", "removed")
    assert venv.run(*doctors).returncode == 0

    edited = ["executors/local_executor.py", "cli/commands/api_server_command.py"]
    for name in edited:
        path = venv.site_packages / "airflow" / name
        text = path.read_text()
        assert "from setproctitle import setproctitle\n" in text
        path.write_text(text.replace("from setproctitle import setproctitle\n", PATCHED))
    venv.run(
        "-c",
        f"import shutil, glob; [shutil.rmtree(p) for p in glob.glob({str(venv.site_packages / 'setproctitle*')!r})]",
    )

    told = venv.run("-m", SHIM, "status", check=False)
    assert told.returncode == 1
    assert any("--force-reinstall --no-deps setproctitle" in line for line in told.stdout.splitlines()[:10])
    done = venv.run("-m", SHIM, "doctor", check=False, AIRFLOW_HOME=str(tmp_path))
    head = done.stdout.splitlines()[:10]
    assert done.returncode == 1
    text = " ".join(" ".join(head).split())
    assert "2 files of apache-airflow-core 3.0.2, edited by hand; 2 to make setproctitle optional" in text
    assert "setproctitle is not installed, though apache-airflow-core 3.0.2 requires it" in text
    remedies = [line.partition("-> ")[2] for line in head if "-> " in line]
    assert len(remedies) == 2
    for remedy in remedies:
        words = remedy.split()
        venv.install(*era, *words[words.index("--force-reinstall") :])
    assert venv.run(*doctors).returncode == 0


def test_files_of_other_packages_may_be_edited(site: Path) -> None:
    metadata = distribution(site, "other", {"other.py": b"changed\n"})
    write(metadata / "RECORD", "other.py,sha256=AAAA,8\n")
    assert findings("edited") == []


def test_an_edited_file_of_airflow_is_named_with_the_version_to_reinstall(site: Path) -> None:
    metadata = distribution(site, "apache-airflow-core", {"airflow_x.py": b"changed\n"}, "3.0.2")
    write(metadata / "RECORD", "airflow_x.py,sha256=AAAA,8\n")
    [finding] = findings("edited")
    assert finding.details == (str(site / "airflow_x.py"),)
    assert finding.remedy.endswith("apache-airflow-core==3.0.2")


@pytest.mark.parametrize("requirement", ["setproctitle-extras", "setproctitle ; extra == 'x'", "other"])
def test_only_a_requirement_of_setproctitle_itself_counts(site: Path, requirement: str) -> None:
    metadata = distribution(site, "needy", {})
    write(
        metadata / "METADATA",
        f"Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: {requirement}\n",
    )
    assert "needy 1.0" not in environment.requirers("setproctitle")


# --- health ------------------------------------------------------------------------------------

WELL = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "healthy"},
    "triggerer": {"status": None},
}
ILL = {**WELL, "scheduler": {"status": "unhealthy"}}


@pytest.fixture
def server() -> Iterator[Any]:
    """A server whose `answers` maps a path to status and body; a path that is not there gets no answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in server.answers:
                stop.wait()
                return
            status, body = server.answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    stop = threading.Event()
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers = {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("version", "page", "variable"),
    [
        ("3.0.2", "/api/v2/monitor/health", "AIRFLOW__API__BASE_URL"),
        ("2.10.5", "/health", "AIRFLOW__WEBSERVER__BASE_URL"),
    ],
)
@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        ((200, json.dumps(WELL).encode()), None),
        ((200, json.dumps(ILL).encode()), "says that scheduler is unhealthy"),
        ((503, json.dumps(WELL).encode()), "answered with status 503"),
        ((200, b"<html>"), "gave an answer that is not Airflow's"),
        ((200, b"[1]"), "gave an answer that is not Airflow's"),
    ],
)
def test_the_health_page_of_a_running_airflow_is_judged(
    server: Any,
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    page: str,
    variable: str,
    answer: tuple[int, bytes],
    evidence: str | None,
) -> None:
    distribution(site, "apache-airflow", {}, version)
    monkeypatch.setenv(variable, f"{server.url}/")
    server.answers[page] = answer
    assert [finding.evidence for finding in findings("health")] == (
        [f"{server.url}{page} {evidence}"] if evidence else []
    )


def test_a_server_that_gives_no_answer_is_a_finding(
    server: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(site, "apache-airflow", {}, "3.0.2")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", server.url)
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    [finding] = findings("health")
    assert "gave no answer within" in finding.evidence


def test_an_airflow_that_does_not_run_is_no_finding(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(site, "apache-airflow", {}, "3.0.2")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"http://127.0.0.1:{harness.free_port()}")
    assert findings("health") == []


def test_without_airflow_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "get", lambda *_: pytest.fail("asked"))
    assert findings("health") == []


# --- execution API -----------------------------------------------------------------------------

REFUSED = """\
[2025-10-05 16:49:15] INFO - HTTP Request: PATCH http://localhost:8080/execution/task-instances/0199/run "HTTP/1.1 401 Unauthorized"
[2025-10-05 16:49:15] ERROR - Server error detail={'status': 401, 'error': 'Unauthorized'}
[2025-10-05 16:49:16] INFO - GET http://localhost:8080/api/v2/dags "HTTP/1.1 401 Unauthorized"
"""


@pytest.mark.parametrize(
    ("variable", "file", "evidence"),
    [
        ("", "", "is set nowhere"),
        ("a", "", "is set in AIRFLOW__API_AUTH__JWT_SECRET; every component must see the same"),
        ("", "a", "is set in HOME/airflow.cfg; every component must see the same"),
        ("a", "b", "differs between AIRFLOW__API_AUTH__JWT_SECRET and HOME/airflow.cfg"),
        ("a", "a", "is set in AIRFLOW__API_AUTH__JWT_SECRET and HOME/airflow.cfg; every"),
    ],
)
def test_refused_workers_are_counted_and_the_secret_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, file: str, evidence: str
) -> None:
    home = tmp_path / "airflow"
    write(home / "logs/scheduler/a.log", REFUSED)
    write(
        home / "airflow.cfg",
        f"[api_auth]\n# a % sign is no interpolation\njwt_secret = {file}\n[x]\ny = %(z\n",
    )
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", variable)
    [finding] = findings("execution-api", logs=home / "logs")
    assert finding.evidence.startswith("1 401 answer of the execution API to workers; ")
    assert evidence.replace("HOME", str(home)) in finding.evidence
    assert len(finding.sources) == 3 and "clocks" in finding.remedy
    assert not any(secret in finding.evidence.split() for secret in ("a", "b"))


# --- crash reports -----------------------------------------------------------------------------

# Reconstructions in Apple's format. The innermost frames of setproctitle's and _scproxy's follow the
# excerpts in the issues named; their outer frames, and the other cases, are composed.
FRAMES = {
    "apache/airflow #45124: setproctitle": """\
libsystem_kernel.dylib __pthread_kill
libsystem_c.dylib raise
libpython3.12.dylib faulthandler_fatal_error
libsystem_platform.dylib _sigtramp
libsystem_trace.dylib _os_log_preferences_refresh
libsystem_trace.dylib os_log_type_enabled
CoreFoundation _CFBundleCopyLoadedImagePathForPointer
CoreFoundation _CFBundleGetBundleWithIdentifier
_setproctitle.cpython-312-darwin.so darwin_set_process_title""",
    "python/cpython #58037: _scproxy": """\
libdispatch.dylib _dispatch_queue_push
libxpc.dylib _xpc_connection_enqueue
CoreFoundation -[_CFXPreferences withConnectionForRole:performBlock:]
SystemConfiguration SCDynamicStoreCopyProxiesWithOptions
_scproxy.cpython-311-darwin.so get_proxy_settings""",
    "apache/airflow #64874: Security or DNS": """\
libsystem_kernel.dylib __abort_with_payload
libobjc.A.dylib performForkChildInitialize(objc_class*, objc_class*)
Security SecTrustEvaluateIfNecessary
libsystem_info.dylib getaddrinfo
_socket.cpython-312-darwin.so socket_getaddrinfo""",
    "python/cpython #77906: Objective-C's initialize": """\
libsystem_kernel.dylib __abort_with_payload
libobjc.A.dylib _objc_fatalv(unsigned long long, unsigned long long, char const*, char*)
libobjc.A.dylib performForkChildInitialize(objc_class*, objc_class*)
CoreFoundation CFStringCreateCopy""",
    "none: not known": """\
libsystem_platform.dylib _platform_memmove
_psycopg.cpython-311-darwin.so connection_setup""",
}


def ips(frames: str, notes: list[str], captured: str = "2025-01-07 15:12:30.1013 +0000") -> str:
    """A crash report as macOS writes it: a line of JSON and a JSON body, frames that point into images."""
    images = sorted({line.split()[0] for line in frames.splitlines()})
    header = {
        "app_name": "python3.12",
        "timestamp": captured,
        "bug_type": "309",
        "os_version": "macOS 14.7 (23H124)",
    }
    body = {
        "captureTime": captured,
        "procName": "python3.12",
        "exception": {"type": "EXC_BAD_ACCESS", "signal": "SIGSEGV"},
        "asi": {"libsystem_c.dylib": notes},
        "faultingThread": 1,
        "threads": [
            {"id": 1, "frames": [{"imageOffset": 8, "symbol": "_setproctitle.decoy", "imageIndex": 0}]},
            {
                "id": 2,
                "triggered": True,
                "frames": [
                    {
                        "imageOffset": 4004,
                        "symbol": line.partition(" ")[2],
                        "symbolLocation": 8,
                        "imageIndex": images.index(line.split()[0]),
                    }
                    for line in frames.splitlines()
                ]
                + [{"imageOffset": 123, "imageIndex": 0}],
            },
        ],
        "usedImages": [{"name": image, "path": f"/usr/lib/{image}"} for image in images],
    }
    return json.dumps(header) + "\n" + json.dumps(body, indent=2)


@pytest.mark.parametrize("name", FRAMES)
def test_a_crash_report_is_attributed_by_the_crashed_threads_frames(tmp_path: Path, name: str) -> None:
    _, _, relative = name.partition(": ")
    notes = ["*** multi-threaded process forked ***", "crashed on child side of fork pre-exec"]
    path = write(tmp_path / "python3.12-2025-01-07-151230.ips", ips(FRAMES[name], notes))
    [finding] = findings("crash-reports", crash_reports=tmp_path)
    assert finding.evidence.startswith(f"1 crash report of Python: the cause is {relative}")
    assert finding.details == (str(path),)
    assert finding.remedy and finding.sources


def test_setproctitle_is_blamed_though_its_crash_went_through_objective_c(tmp_path: Path) -> None:
    frames = "libobjc.A.dylib performForkChildInitialize\n_setproctitle.cpython-311-darwin.so\n"
    note = "+[__NSCFConstantString initialize] may have been in progress in another thread when fork() was called."
    write(tmp_path / "Python-1.ips", ips(frames, [note]))
    [finding] = findings("crash-reports", crash_reports=tmp_path)
    assert "the cause is setproctitle" in finding.evidence


@pytest.mark.parametrize(("installed", "severity"), [(BEFORE_ALL, "error"), (AFTER_ALL, "note")])
def test_crashes_in_setproctitle_matter_if_newer_than_the_shim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: float, severity: str
) -> None:
    monkeypatch.setattr(environment, "installed_at", lambda: installed)
    write(tmp_path / "Python-1.ips", ips(next(iter(FRAMES.values())), []))
    [finding] = findings("crash-reports", crash_reports=tmp_path)
    assert finding.severity == severity
    assert ("before the shim" in finding.evidence) is (severity == "note")


@pytest.mark.parametrize("name", ["Safari-1.ips", "Python-1.txt"])
def test_other_programs_and_files_are_left_alone(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, ips(FRAMES["none: not known"], []))
    assert findings("crash-reports", crash_reports=tmp_path) == []


WHOLE = ips(FRAMES["none: not known"], [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\0\0",
        WHOLE[: len(WHOLE) // 2].encode(),
        WHOLE.partition("\n")[0].encode(),
        WHOLE.partition("\n")[2].encode(),
        b"[]\n[]",
        b"{}\n{}",
        WHOLE.replace('"faultingThread": 1', '"faultingThread": 9').encode(),
        WHOLE.replace('"imageIndex": 1', '"imageIndex": "x"').encode(),
        WHOLE.replace('"usedImages"', '"otherImages"').encode(),
        b"{}\n" + b"[" * 100_000,
    ],
    ids=[
        "empty",
        "binary",
        "cut",
        "header only",
        "no header",
        "lists",
        "objects",
        "thread",
        "image",
        "images",
        "deep",
    ],
)
def test_a_malformed_or_truncated_report_is_reported_as_such(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "Python-1.ips", content)
    [finding] = findings("crash-reports", crash_reports=tmp_path)
    assert finding.evidence == "1 crash report of Python: malformed or truncated"
    assert finding.details[0].startswith(str(path))


# --- environment -------------------------------------------------------------------------------


def subjects() -> list[str]:
    """The first word of each finding about the surroundings."""
    return [finding.evidence.split()[0] for finding in findings("environment")]


def test_off_macos_the_surroundings_do_not_matter() -> None:
    assert subjects() == []


def test_on_macos_the_surroundings_are_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(doctor.multiprocessing, "get_start_method", lambda: "spawn")
    monkeypatch.setattr(doctor, "is_active", lambda: True)
    monkeypatch.setenv("NO_PROXY", "*")
    assert subjects() == []
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert subjects() == ["NO_PROXY"]
    monkeypatch.setenv("OBJC_DISABLE_INITIALIZE_FORK_SAFETY", "YES")
    assert subjects() == ["NO_PROXY", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY"]
    write(tmp_path / "airflow/airflow.cfg", "[core]\nmp_start_method = fork\n")
    assert subjects() == ["NO_PROXY", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY", "multiprocessing"]
    monkeypatch.setattr(doctor, "is_active", lambda: False)
    assert subjects() == [
        "setproctitle",
        "NO_PROXY",
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY",
        "multiprocessing",
    ]


@pytest.mark.parametrize(
    ("version", "unsafe"),
    [("1.2.3", False), ("1.3", True), ("1.3.8", True), ("1.10", True), ("2.0", True), ("", False)],
)
def test_setproctitle_is_unsafe_from_1_3_on(version: str, unsafe: bool) -> None:
    assert doctor.unsafe_on_macos(version) is unsafe


# --- the whole ---------------------------------------------------------------------------------


def test_a_check_that_fails_is_a_finding_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(scope: doctor.Scope) -> Iterator[doctor.Finding]:
        raise RuntimeError("no luck")
        yield

    monkeypatch.setitem(doctor.CHECKS, "imports", broken)
    [finding] = doctor.diagnose(doctor.Scope([], Path("/none")), ["imports", "crashes"])
    assert "no luck" in finding.evidence


def test_every_finding_has_evidence_a_remedy_and_a_severity_that_is_known() -> None:
    for finding in doctor.diagnose(doctor.Scope([], Path("/none")), list(doctor.CHECKS)):
        assert finding.severity in doctor.SEVERITIES
        assert all(dataclasses.asdict(finding)[key] for key in ("id", "evidence", "remedy"))
        assert not re.search(r"\n", finding.evidence + finding.remedy)


def test_the_worst_comes_first(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "installed_at", lambda: BEFORE_ALL)
    write(tmp_path / "logs/a.log", STANDALONE)
    distribution(site, "consumer", {"consumer.py": b"import setproctitle\n"})
    found = doctor.diagnose(doctor.Scope([tmp_path / "logs"], Path("/none")), ["imports", "crashes"])
    assert [finding.severity for finding in found] == ["error", "note"]


def test_all_is_documented_in_the_readable_list() -> None:
    text = (ROOT / "docs/command-line.md").read_text()
    assert all(f"`{name}`" in text for name in doctor.CHECKS)
