"""What the doctor finds, each on the real thing or on what is shaped like it; deaths have files of their own."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from environments import ROOT, Venv, distribution, write

from airflow_setproctitle_shim.diagnosis import airflow_server, doctor, packages, state
from airflow_setproctitle_shim.diagnosis.finding import SEVERITIES, Answer, Finding

SHIM = "airflow_setproctitle_shim"
DEATH = "[2036-11-22 10:00:00 +0000] [1] [ERROR] Worker (pid:2) was sent SIGSEGV!\n"


@pytest.fixture(autouse=True)
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own Airflow and switches are not looked at."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))


def answer(check: str, logs: Path = Path("/none")) -> Answer:
    """What one check answers."""
    return doctor.diagnose(doctor.Facts([logs], [Path("/none")]), [check])[check]


def findings(check: str, logs: Path = Path("/none")) -> list[Any]:
    return answer(check, logs).findings


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
        ("apache-airflow-core", "3.1", "keeps it from macOS itself"),
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


def test_an_egg_counts_and_what_a_description_says_does_not(site: Path) -> None:
    write(site / "egg.egg-info/PKG-INFO", "Metadata-Version: 1.1\nName: Egg_.1\nVersion: 2\n")
    metadata = distribution(site, "wordy", {})
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wordy\nVersion: 1\n\nName: other\nVersion: 3\nRequires-Dist: setproctitle\n"
    )
    found = packages.installed()
    assert packages.Package("egg-1", "2", False) in found
    assert packages.Package("wordy", "1", False) in found


def used_by(*others: tuple[str, str, bool]) -> Answer:
    return packages.used_by([packages.Package(*other) for other in others])


NOBODY = "nothing installed here uses setproctitle: is this the environment your workers run in?"
NOT_NEEDED = "nothing to do: the shim is not needed for them"


def test_where_somebody_calls_it_and_it_is_there_there_is_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packages, "is_there", lambda: True)
    assert used_by(("gunicorn", "25.0", False), ("celery", "5.7", False), ("mine", "1", True)) == Answer(
        "celery 5.7 calls it, mine 1 calls it, gunicorn 25.0 keeps it from macOS itself"
    )


def test_where_all_guard_themselves_the_shim_is_said_not_to_be_needed() -> None:
    told = "gunicorn 25.1.0 keeps it from macOS itself, apache-airflow-core 3.1.8 keeps it from macOS itself"
    evidence = f"nothing installed here calls setproctitle on macOS: {told}"
    assert used_by(("gunicorn", "25.1.0", False), ("apache-airflow-core", "3.1.8", True)) == Answer(
        told, [Finding("note", evidence, NOT_NEEDED)]
    )


def test_where_only_optional_callers_are_it_matters_whether_setproctitle_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packages, "is_there", lambda: False)
    told = "gunicorn 23.0.0 calls it"
    evidence = f"setproctitle is not installed, and does not need to be: {told} only where it is"
    assert used_by(("gunicorn", "23.0.0", False)) == Answer(told, [Finding("note", evidence, NOT_NEEDED)])
    evidence = "setproctitle is not there, though apache-airflow 2.10.5 requires it; with the shim it is safe to have"
    assert used_by(("gunicorn", "23.0.0", False), ("apache-airflow", "2.10.5", True)) == Answer(
        "gunicorn 23.0.0 calls it, apache-airflow 2.10.5 calls it",
        [Finding("warning", evidence, state.install("setproctitle"))],
    )


@pytest.mark.parametrize(
    ("there", "active", "platform", "severity"),
    [
        (False, True, "linux", "warning"),
        (False, False, "darwin", "warning"),
        (True, True, "darwin", "note"),
        (False, False, "linux", "note"),
        (True, False, "linux", "note"),
    ],
)
def test_nobody_is_a_warning_only_where_nothing_could_use_it_and_it_would_matter(
    monkeypatch: pytest.MonkeyPatch, there: bool, active: bool, platform: str, severity: str
) -> None:
    monkeypatch.setattr(packages, "is_there", lambda: there)
    monkeypatch.setattr(packages, "is_active", lambda: active)
    monkeypatch.setattr(sys, "platform", platform)
    assert used_by(("somebodys", "1.0", False), ("others", "2", False)) == Answer(
        "none of 2 installed distributions is known to",
        [Finding(severity, NOBODY, "run this with the Python that runs your workers")],
    )


def test_it_is_there_if_it_is_installed_files_and_all(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(site)])
    assert packages.is_there() is False
    (site / "setproctitle").mkdir()  # what is left when its files are deleted
    importlib.invalidate_caches()
    assert packages.is_there() is False
    distribution(site, "setproctitle", {}, "1.3.8")
    assert packages.is_there() is False
    write(site / "setproctitle/__init__.py", "")
    importlib.invalidate_caches()
    assert packages.is_there() is True
    [metadata] = site.glob("*.dist-info/METADATA")
    metadata.unlink()
    assert packages.is_there() is False


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


def test_an_edited_file_of_airflow_is_named_with_the_version_to_reinstall(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(site)])
    files = {
        "airflow/same.py": b"same\n",
        "airflow/patched.py": PATCHED.encode(),
        "airflow/other.py": b"import setproctitle\n",
        "airflow/data.txt": b"anything\n",
        "airflow/unknown.py": b"no hash\n",
    }
    same = base64.urlsafe_b64encode(hashlib.sha256(files["airflow/same.py"]).digest()).decode().rstrip("=")
    changed = [f"airflow/{name},sha256=AAAA,8" for name in ("patched.py", "other.py", "data.txt", "gone.py")]
    rows = [f"airflow/same.py,sha256={same},5", *changed, "airflow/unknown.py,,", ""]
    write(distribution(site, "apache-airflow-core", files, "3.0.2") / "RECORD", "\n".join(rows))
    write(distribution(site, "apache-airflow", {"a.py": b""}, "3.0.2") / "RECORD", "a.py,unknown=x,0\n")
    distribution(site, "aaa", {})
    sdk = distribution(site, "apache-airflow-task-sdk", {"b.py": b""}, "1.0.2")
    write(sdk / "RECORD", "b.py,sha256=AAAA,0\n")
    assert answer("edited") == Answer(
        "Airflow's Python files, by the hashes in RECORD: 4",
        [
            Finding(
                "warning",
                "2 files of apache-airflow-core 3.0.2, edited by hand"
                "; 1 to make setproctitle optional, which the shim makes needless",
                state.install("apache-airflow-core==3.0.2"),
                details=tuple(str(site / "airflow" / name) for name in ("patched.py", "other.py")),
            ),
            Finding(
                "warning",
                "1 file of apache-airflow-task-sdk 1.0.2, edited by hand",
                state.install("apache-airflow-task-sdk==1.0.2"),
                details=(str(site / "b.py"),),
            ),
        ],
    )


# --- settings ------------------------------------------------------------------------------------


def test_by_default_the_logs_of_airflows_home_are_read(tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    write(home / "logs/scheduler/a.log", "")
    for name in ("b.err", "standalone.log", "airflow.db", "a.out"):
        write(home / name, "")
    assert airflow_server.default_logs() == [
        home / "logs",
        *(home / name for name in ("standalone.log", "b.err", "a.out")),
    ]


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
    told = doctor.diagnose(doctor.Facts(), ["crashes"])["crashes"]
    assert any(read.path.is_relative_to(tmp_path / place / "logs") for read in told.read)
    assert [it.evidence.partition(":")[0] for it in told.findings] == (
        [] if place == "with logs" else ["no log was found to look for deaths in"]
    )


@pytest.mark.parametrize("kind", ["pipe", "directory", "cannot be read", "another file"])
def test_airflows_file_may_be_none_or_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "airflow/airflow.cfg"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "cannot be read":
        path.symlink_to("/proc/self/mem")
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
    ("variable", "file", "places"),
    [
        ("", "", ""),
        ("SECRET", "", "AIRFLOW__API_AUTH__JWT_SECRET"),
        ("", "a", "HOME/airflow.cfg"),
        ("SECRET", "b", "AIRFLOW__API_AUTH__JWT_SECRET and HOME/airflow.cfg"),
        ("SECRET_CMD", "a", "HOME/airflow.cfg and AIRFLOW__API_AUTH__JWT_SECRET_CMD"),
        ("SECRET_SECRET", "", "AIRFLOW__API_AUTH__JWT_SECRET_SECRET"),
    ],
)
def test_refused_workers_are_counted_and_the_secret_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, file: str, places: str
) -> None:
    home = tmp_path / "airflow"
    write(home / "logs/scheduler/a.log", REFUSED)
    write(
        home / "airflow.cfg",
        f"[api_auth]\n# a % sign is no interpolation\njwt_secret = {file}\n[x]\ny = %(z\n",
    )
    if variable:
        monkeypatch.setenv(f"AIRFLOW__API_AUTH__JWT_{variable}", "a")
    told = answer("execution-api", logs=home / "logs")
    is_set = f"is set in {places.replace('HOME', str(home))}; every component must see the same, and the same time of day"
    assert [read.path for read in told.read] == [home / "logs/scheduler/a.log"]
    assert told.findings == [
        Finding(
            "warning",
            "401 of the execution API to workers: 1; [api_auth] jwt_secret "
            + (is_set if places else "is set nowhere, so every component makes up its own"),
            "export AIRFLOW__API_AUTH__JWT_SECRET=... with one value for all components; compare clocks",
            ("apache/airflow/issues/49871", "apache/airflow/issues/51235"),
            (f"scheduler: first at {home / 'logs/scheduler/a.log'}:1",),
            {"count": 1},
        )
    ]


def test_each_refusal_of_a_second_counts(tmp_path: Path) -> None:
    log = write(tmp_path / "scheduler.log", REFUSED + REFUSED.replace("0199", "0200"))
    assert findings("execution-api", logs=log)[0].data == {"count": 2}


# --- the whole -----------------------------------------------------------------------------------


def test_a_check_that_fails_is_a_finding_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(facts: doctor.Facts) -> Answer:
        raise RuntimeError("no luck")

    monkeypatch.setitem(doctor.CHECKS, "edited", ("?", broken))
    answers = doctor.diagnose(doctor.Facts([Path("/none")], [Path("/none")]), ["edited", "startup"])
    evidence = "the check edited failed: RuntimeError: no luck"
    finding = Finding("warning", evidence, "please report this line")
    assert answers == {"edited": Answer("the check failed", [finding]), "startup": state.startup()}


def test_crash_reports_are_looked_for_where_macos_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    looked_at = doctor.diagnose(doctor.Facts(), ["crash-reports"])["crash-reports"].looked_at
    assert looked_at.startswith(f"read 0 crash reports in {tmp_path}/Library/Logs/DiagnosticReports; ")


@pytest.mark.parametrize("wrong", [["switch it on"], ["first", "second"], []])
def test_where_the_shim_is_off_deaths_are_mended_by_what_switches_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: list[str]
) -> None:
    flaws = [Finding("error", "it is off", remedy) for remedy in wrong]
    monkeypatch.setattr(state, "startup", lambda: Answer("", flaws))
    monkeypatch.setattr(state, "installed_at", lambda: 0.0)
    log = write(tmp_path / "gunicorn.log", DEATH)
    reports = [ROOT / "tests/data/crash-reports/python3.12-airflow45124.ips"]
    told = doctor.diagnose(doctor.Facts([log], reports), ["crash-reports", "crashes"])
    [report], [death] = told["crash-reports"].findings, told["crashes"].findings
    assert report.remedy == ("; ".join(wrong) or "restart what may run since before the installation")
    assert death.remedy.startswith(
        f"{'; '.join(wrong)}; then restart gunicorn" if wrong else "to see the cause"
    )


def test_every_answer_says_what_was_looked_at_and_every_finding_what_to_do(tmp_path: Path) -> None:
    for name, told in doctor.diagnose(doctor.Facts([tmp_path], [tmp_path]), doctor.CHECKS).items():
        assert told.looked_at, name
        for finding in told.findings:
            assert finding.severity in SEVERITIES
            assert finding.evidence and finding.remedy
            assert not re.search(r"\n", finding.evidence + finding.remedy)


def test_all_is_documented_in_the_readable_list() -> None:
    text = (ROOT / "docs/command-line.md").read_text()
    assert re.findall(r"(?m)^\| `([\w-]+)` \| ", text[text.index("## doctor") :]) == list(doctor.CHECKS)
