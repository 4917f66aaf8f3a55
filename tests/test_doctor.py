"""What the doctor finds, each on the real thing or on what is shaped like it; deaths have files of their own."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import ROOT, Venv
from processes import free_port

from airflow_setproctitle_shim.diagnosis import airflow_server, doctor, packages
from airflow_setproctitle_shim.diagnosis.finding import SEVERITIES, Answer

SHIM = "airflow_setproctitle_shim"


@pytest.fixture(autouse=True)
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own Airflow and switches are not looked at."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))


def answer(check: str, logs: Path = Path("/none")) -> Answer:
    """What one check answers."""
    return doctor.diagnose(doctor.Facts(logs, Path("/none")), [check])[check]


def findings(check: str, logs: Path = Path("/none")) -> list[Any]:
    return answer(check, logs).findings


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def distribution(
    site: Path, name: str, files: dict[str, bytes], version: str = "1.0", requires: str = ""
) -> Path:
    """Install a distribution with these files by hand; return its metadata's directory."""
    for file, content in files.items():
        write(site / file, content)
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    write(
        metadata / "METADATA",
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{f'Requires-Dist: {requires}' * bool(requires)}\n",
    )
    write(metadata / "RECORD", "".join(f"{file},,\n" for file in files))
    return metadata


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory at the head of sys.path."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    return path


# --- who uses setproctitle -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version", "what"),
    [
        ("apache-airflow", "2.10.5", "calls it"),
        ("apache-airflow", "3.0.2", None),
        ("apache-airflow-core", "3.0.6", "calls it"),
        ("apache-airflow-core", "3.1.0", "keeps it from macOS itself"),
        ("apache-airflow-task-sdk", "1.0.2", "keeps it from macOS itself"),
        ("Gunicorn", "24.1.1", "calls it"),
        ("gunicorn", "25.0.0", "keeps it from macOS itself"),
        ("celery", "5.7.0", "calls it"),
        ("faust_streaming", "0.11.3", "calls it"),
        ("mutmut", "2.5.1", None),
        ("mutmut", "3.0.0", "calls it"),
        ("ray", "2.47.1", "calls it"),
        ("ray", "2.48.0", "has a copy of its own, which the shim does not reach"),
        ("somebodys", "1.0", None),
    ],
)
def test_known_programs_are_told_by_their_versions(
    site: Path, name: str, version: str, what: str | None
) -> None:
    distribution(site, name, {}, version)
    normal = name.lower().replace("_", "-")
    assert packages.users(packages.installed()).get(f"{normal} {version}") == what


@pytest.mark.parametrize(
    ("requirement", "counts"),
    [
        ("setproctitle", True),
        ("setproctitle (>=1.1.8)", True),
        ("setproctitle<2,>=1.1.8; python_version >= '3.9'", True),
        ("setproctitle; sys_platform != 'win32'", True),
        ("setproctitle-extras", False),
        ("setproctitle ; extra == 'x'", False),
        ("setproctitle; sys_platform == 'linux'", False),
        ('setproctitle; sys_platform != "darwin"', False),
        ("other", False),
    ],
)
def test_an_unknown_distribution_counts_if_it_requires_setproctitle_on_macos(
    site: Path, requirement: str, counts: bool
) -> None:
    distribution(site, "needy", {}, requires=requirement)
    assert ("needy 1.0" in packages.users(packages.installed())) is counts


def evidence(*others: tuple[str, str, str]) -> list[tuple[str, str]]:
    return [(it.severity, it.evidence) for it in packages.used_by([*map(package, others)]).findings]


def package(fields: tuple[str, str, str]) -> packages.Package:
    name, version, requires = fields
    return packages.Package(name, version, bool(requires))


def test_where_all_guard_themselves_the_shim_is_said_not_to_be_needed() -> None:
    [(severity, text)] = evidence(("gunicorn", "25.1.0", ""), ("apache-airflow-core", "3.1.8", "requires"))
    assert severity == "note"
    assert text.startswith("nothing installed here calls setproctitle on macOS: ")
    assert "gunicorn 25.1.0 keeps it" in text and "apache-airflow-core 3.1.8 keeps it" in text


def test_where_only_optional_callers_are_it_matters_whether_setproctitle_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert evidence(("gunicorn", "23.0.0", "")) == []
    monkeypatch.setattr(packages, "is_there", lambda: False)
    [(severity, text)] = evidence(("gunicorn", "23.0.0", ""))
    assert severity == "note"
    assert (
        text
        == "setproctitle is not installed, and does not need to be: gunicorn 23.0.0 calls it only where it is"
    )
    [(severity, text)] = evidence(("gunicorn", "23.0.0", ""), ("apache-airflow", "2.10.5", "requires"))
    assert severity == "warning"
    assert text.startswith("setproctitle is not there, though apache-airflow 2.10.5 requires it")


@pytest.mark.parametrize(
    ("there", "active", "severity"),
    [(False, True, "warning"), (True, True, "note"), (False, False, "note"), (True, False, "note")],
)
def test_nobody_is_a_warning_only_where_nothing_could_use_it_and_it_would_matter(
    monkeypatch: pytest.MonkeyPatch, there: bool, active: bool, severity: str
) -> None:
    monkeypatch.setattr(packages, "is_there", lambda: there)
    monkeypatch.setattr(packages, "is_active", lambda: active)
    [(told, text)] = evidence(("somebodys", "1.0", ""))
    assert told == severity
    assert text == "nothing installed here uses setproctitle: is this the environment your workers run in?"


def test_broken_metadata_of_others_hides_nothing(site: Path) -> None:
    write(site / "nameless-1.0.dist-info/METADATA", "")
    (site / "empty-1.0.dist-info").mkdir()
    write(
        distribution(site, "apache-airflow-crooked", {"a.py": b""}) / "RECORD", b'a.py,sha256=x,1\n"\xff,\0\n'
    )
    write(site / "binary-1.0.dist-info/METADATA", b"\xff\xfe\0Name: \xff\n")
    (site / "directory-1.0.dist-info/METADATA").mkdir(parents=True)
    distribution(site, "good", {}, requires="setproctitle")
    assert "good 1.0" in packages.users(packages.installed())
    assert "good 1.0 calls it" in answer("used-by").looked_at


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
    doctors = ("-m", SHIM, "doctor", "--only", "edited", "--only", "used-by")
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
    assert "setproctitle is not there, though apache-airflow-core 3.0.2 requires it" in text
    remedies = [line.partition("-> ")[2] for line in head if "--force-reinstall" in line]
    assert len(remedies) == 2
    for remedy in remedies:
        words = remedy.split()
        venv.install(*era, *words[words.index("--force-reinstall") :])
    assert venv.run(*doctors).returncode == 0


@pytest.mark.parametrize("name", ["other", "apache-beam"])
def test_files_of_other_packages_may_be_edited(site: Path, name: str) -> None:
    metadata = distribution(site, name, {"other.py": b"changed\n"})
    write(metadata / "RECORD", "other.py,sha256=AAAA,8\n")
    assert findings("edited") == []


def test_an_edited_file_of_airflow_is_named_with_the_version_to_reinstall(site: Path) -> None:
    metadata = distribution(site, "apache-airflow-core", {"airflow_x.py": b"changed\n"}, "3.0.2")
    write(metadata / "RECORD", "airflow_x.py,sha256=AAAA,8\n")
    [finding] = findings("edited")
    assert finding.details == (str(site / "airflow_x.py"),)
    assert finding.evidence == "1 file of apache-airflow-core 3.0.2, edited by hand"
    assert finding.remedy.endswith("apache-airflow-core==3.0.2")


def test_the_old_recipes_patch_is_recognised(site: Path) -> None:
    files = {"airflow_x.py": PATCHED.encode(), "airflow_y.py": b"import setproctitle\n"}
    metadata = distribution(site, "apache-airflow-core", files, "3.0.2")
    write(metadata / "RECORD", "airflow_x.py,sha256=AAAA,8\nairflow_y.py,sha256=AAAA,8\n")
    [finding] = findings("edited")
    assert "2 files of" in finding.evidence
    assert finding.evidence.endswith("; 1 to make setproctitle optional, which the shim makes needless")


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
        ((200, json.dumps(ILL).encode()), "answered with status 200, unhealthy: scheduler"),
        ((503, json.dumps(WELL).encode()), "answered with status 503, unhealthy: nothing"),
        ((200, b"<html>"), "gave no answer of Airflow's"),
        ((200, b"[1]"), "gave no answer of Airflow's"),
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
    told = [finding.evidence for finding in findings("health")]
    assert len(told) == bool(evidence)
    assert all(text.startswith(f"{server.url}{page} {evidence}") for text in told)


def test_a_server_that_gives_no_answer_is_a_finding(
    server: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(site, "apache-airflow", {}, "3.0.2")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", server.url)
    monkeypatch.setattr(airflow_server, "PATIENCE", 0.2)
    [finding] = findings("health")
    assert "gave no answer within" in finding.evidence


def test_an_airflow_that_does_not_run_is_no_finding(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(site, "apache-airflow", {}, "3.0.2")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"http://127.0.0.1:{free_port()}")
    assert findings("health") == []
    assert "Airflow does not run there" in answer("health").looked_at


def test_a_server_that_drips_is_given_up_in_time(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte starts a socket's timeout anew: it is the whole answer that has a deadline."""
    monkeypatch.setattr(airflow_server, "PATIENCE", 0.5)
    distribution(site, "apache-airflow", {}, "3.0.2")
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.05):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            [finding] = findings("health")
        finally:
            stop.set()
            thread.join()
    assert "gave no answer within 0.5 s" in finding.evidence


def test_without_airflow_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_server, "_ask", lambda _: pytest.fail("asked"))
    assert answer("health").looked_at == "no page is known of the Airflow installed here: none"


@pytest.mark.parametrize(
    ("version", "settings", "asked"),
    [
        ("3.0.2", {}, "http://localhost:8080/api/v2/monitor/health could not be asked"),
        ("2.10.5", {"WEBSERVER__BASE_URL": "http://x/y"}, "http://x/y/health could not be asked"),
        ("3.0.2", {"API__BASE_URL": "localhost:8080"}, "localhost:8080/api/v2/monitor/health"),
        ("3.0.2", {"API__BASE_URL": "http://[::1"}, "http://[::1/api/v2/monitor/health"),
        ("3.0.2", {"API__BASE_URL": "http://x:many"}, "http://x:many/api/v2/monitor/health"),
        ("1.10.15", {}, "no page is known of the Airflow installed here: 1.10.15"),
    ],
)
def test_where_the_page_is_said_to_be_is_told_whatever_is_configured(
    site: Path, monkeypatch: pytest.MonkeyPatch, version: str, settings: dict[str, str], asked: str
) -> None:
    monkeypatch.setattr(
        "http.client.HTTPConnection.connect", lambda _: (_ for _ in ()).throw(OSError("refused"))
    )
    distribution(site, "apache-airflow", {}, version)
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__{name}", value)
    assert answer("health").looked_at.startswith(asked)


# --- settings ------------------------------------------------------------------------------------


def test_by_default_the_logs_of_airflows_home_are_read(tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    write(home / "logs/scheduler/a.log", "")
    write(home / "standalone.log", "")
    write(home / "airflow.db", "")
    assert airflow_server.default_logs() == [home / "logs", home / "standalone.log"]


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("~/elsewhere", "HOME/elsewhere"),
        ("$AIRFLOW_HOME/mine", "AIRFLOW/mine"),
        ("${AIRFLOW_HOME}/mine", "AIRFLOW/mine"),
        ("{AIRFLOW_HOME}/mine", "AIRFLOW/mine"),
        ("$PLACE/mine", "/place/mine"),
        ("$NOT_SET/mine", "$NOT_SET/mine"),
        ("", "AIRFLOW/logs"),
    ],
)
@pytest.mark.parametrize("where", ["file", "variable"])
@pytest.mark.parametrize("home_is_set", [True, False])
def test_a_log_folder_that_is_configured_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, place: str, where: str, home_is_set: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "/place")
    if not home_is_set:
        monkeypatch.delenv("AIRFLOW_HOME")
    if where == "file":
        write(tmp_path / "airflow/airflow.cfg", f"[logging]\nbase_log_folder = {folder}\n")
    else:
        monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", folder)
    expected = place.replace("AIRFLOW", str(tmp_path / "airflow")).replace("HOME", str(tmp_path))
    assert airflow_server.default_logs() == [Path(expected)]


LATER = b"[logging]\nbase_log_folder = /there\n"


@pytest.mark.parametrize(
    ("content", "folder"),
    [
        (b"", None),
        (b"\0\xff\xfe", None),
        (b"base_log_folder = /nowhere\n", None),
        (b"[logging\nbase_log_folder", None),
        (b"\xef\xbb\xbf" + LATER, "/there"),
        (b"[x]\ny = %(z\n[x]\ny = 2\n" + LATER, "/there"),
        (b"# caf\xe9\n" + LATER, "/there"),
        (LATER + b"no value here\n", "/there"),
        (LATER.replace(b"\n", b"\r\n"), "/there"),
    ],
)
def test_airflows_file_may_be_in_any_state(tmp_path: Path, content: bytes, folder: str | None) -> None:
    write(tmp_path / "airflow/airflow.cfg", content)
    assert airflow_server.default_logs() == [Path(folder) if folder else tmp_path / "airflow/logs"]


@pytest.mark.parametrize("place", ["$NOT_SET", "~nobody", "file", "[", "with logs"])
def test_airflows_home_may_be_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    write(tmp_path / "file", "")
    write(tmp_path / "with logs/logs/a.log", "all is well\n")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / place))
    told = doctor.diagnose(doctor.Facts(None, None), ["crashes"])["crashes"]
    assert any(read.path.is_relative_to(tmp_path / place / "logs") for read in told.read)
    assert [it.evidence.partition(":")[0] for it in told.findings] == (
        [] if place == "with logs" else ["no log was found to look for deaths in"]
    )


@pytest.mark.parametrize("kind", ["pipe", "directory", "another file"])
def test_airflows_file_may_be_none_or_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "airflow/airflow.cfg"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        monkeypatch.setenv("AIRFLOW_CONFIG", "$AIRFLOW_HOME/other.cfg")
        write(path.with_name("other.cfg"), LATER)
    folder = Path("/there") if kind == "another file" else tmp_path / "airflow/logs"
    assert airflow_server.default_logs() == [folder]


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
        ("a", "b", "is set in AIRFLOW__API_AUTH__JWT_SECRET and HOME/airflow.cfg; every"),
        ("!a", "a", "is set in HOME/airflow.cfg and AIRFLOW__API_AUTH__JWT_SECRET_CMD; every component"),
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
    command = "_CMD" if variable.startswith("!") else ""
    monkeypatch.setenv(f"AIRFLOW__API_AUTH__JWT_SECRET{command}", variable)
    [finding] = findings("execution-api", logs=home / "logs")
    assert finding.evidence.startswith("401 of the execution API to workers: 1; ")
    assert evidence.replace("HOME", str(home)) in finding.evidence
    assert len(finding.sources) == 2 and "clocks" in finding.remedy
    assert finding.data == {"count": 1}
    assert not any(secret in finding.evidence.split() for secret in ("a", "b"))


# --- the whole -----------------------------------------------------------------------------------


def test_a_check_that_fails_is_a_finding_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(facts: doctor.Facts) -> Answer:
        raise RuntimeError("no luck")

    monkeypatch.setitem(doctor.CHECKS, "health", ("?", broken))
    answers = doctor.diagnose(doctor.Facts(Path("/none"), Path("/none")), ["health", "startup"])
    assert "no luck" in answers["health"].findings[0].evidence
    assert answers["startup"].looked_at


def test_every_answer_says_what_was_looked_at_and_every_finding_what_to_do(tmp_path: Path) -> None:
    for name, told in doctor.diagnose(doctor.Facts(tmp_path, tmp_path), doctor.CHECKS).items():
        assert told.looked_at, name
        for finding in told.findings:
            assert finding.severity in SEVERITIES
            assert finding.evidence and finding.remedy
            assert not re.search(r"\n", finding.evidence + finding.remedy)


def test_all_is_documented_in_the_readable_list() -> None:
    text = (ROOT / "docs/command-line.md").read_text()
    assert all(f"`{name}`" in text for name in doctor.CHECKS)
