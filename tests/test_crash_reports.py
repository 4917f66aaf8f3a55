"""What macOS's crash reports tell: the cause, whether the process had forked, whose it was, and when."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_setproctitle_shim.diagnosis import crash_reports as module
from airflow_setproctitle_shim.diagnosis.finding import Answer, Finding, Read

DATA = Path(__file__).parent / "data/crash-reports"
CRASHED_AT = datetime.datetime(2025, 1, 7, 15, 12, 30, tzinfo=datetime.timezone.utc).timestamp()
FORKED = {"libsystem_c.dylib": ["crashed on child side of fork pre-exec"]}


def judge(place: Path, installed_at: float = CRASHED_AT, switch_on: str = "") -> Answer:
    return module.crash_reports([place], installed_at, switch_on)


def ips(path: Path, frames: str, asi: object = None, **more: object) -> Path:
    """Write a crash report as macOS does: a line of JSON and a JSON body, frames that point into images."""
    lines = [line.split(" ", 1) for line in frames.splitlines()]
    images = sorted({image for image, _ in lines} | {"libpython3.12.dylib"})
    captured = "2025-01-07 15:12:30.1013 +0000"
    header = {"app_name": "python3.12", "timestamp": captured, "bug_type": "309"}
    crashed = [
        {"imageOffset": 8, "imageIndex": images.index(image), "symbol": symbol} for image, symbol in lines
    ]
    body = {
        "captureTime": captured,
        "procName": "python3.12",
        "asi": FORKED if asi is None else asi,
        "faultingThread": 1,
        # Another thread is in setproctitle; it did not crash.
        "threads": [{"frames": [{"imageIndex": 0, "symbol": "_setproctitle.decoy"}]}, {"frames": crashed}],
        "usedImages": [{"name": image} for image in images],
        **more,
    }
    path.write_text(json.dumps(header) + "\n" + json.dumps(body, indent=2))
    return path


@pytest.mark.parametrize(
    ("name", "cause", "forked"),
    [
        ("Python-2023-notforked-keychain", "DNS/Network/Security", False),
        ("python3.12-airflow45124", "setproctitle", True),
        ("python3.12-airflow64874-getaddrinfo", "DNS/Network/Security", True),
        ("python3.12-celery869-sqlite", "unknown", True),
        ("python3.12-cpython102525", "unknown", True),
        ("python3.12-kalite2844", "_scproxy", True),
        ("python3.12-rubypg631-psycopg-gss-segv", "libpq's GSS", True),
    ],
)
def test_reports_of_public_issues_have_the_cause_that_was_found_there(
    name: str, cause: str, forked: bool
) -> None:
    [finding] = judge(DATA / f"{name}.ips").findings
    assert (finding.data["cause"], finding.data["forked"]) == (cause, forked)
    assert finding.data["counts"] == {"before": 0, "since": 1, "undated": 0}
    assert "pip install" not in finding.remedy


FRAMES = {
    "setproctitle": [
        (
            "libobjc.A.dylib performForkChildInitialize(objc_class*, objc_class*)\nSecurity SecTaskCopyValueForEntitlement\n"
            "LaunchServices _LSApplicationCheckIn\n_setproctitle.cpython-311-darwin.so darwin_set_process_title"
        ),
        "libsystem_trace.dylib os_log_type_enabled\nLaunchServices _LSSetApplicationInformationItem",
    ],
    "_scproxy": [
        (
            "libxpc.dylib _xpc_connection_enqueue\nSystemConfiguration SCDynamicStoreCopyProxiesWithOptions\n"
            "_scproxy.cpython-311-darwin.so get_proxy_settings"
        ),
    ],
    "DNS/Network/Security": [
        "libobjc.A.dylib performForkChildInitialize\nlibsystem_info.dylib getaddrinfo\nlibpq.5.dylib PQconnectPoll",
        "libsystem_trace.dylib os_log_type_enabled\nSecurity SecTrustEvaluateIfNecessary\nlibssl.3.dylib SSL_connect",
        "NetworkExtension -[NEFlowDirector dealloc]\nlibsystem_c.dylib fork",
        "Network nw_path_create_evaluator\ncygrpc.cpython-311-darwin.so grpc_init",
    ],
    "libpq's GSS": [
        "libdispatch.dylib dispatch_once\nHeimdal krb5_init_context\nGSS gss_acquire_cred\nlibpq.5.dylib PQconnectPoll",
        "CoreFoundation CFPreferencesCopyAppValue\nlibpq.5.dylib pg_GSS_have_cred_cache",
        "libxpc.dylib xpc_connection_send_message\nlibpq.5.dylib PQconnectPoll",
        "libdispatch.dylib dispatch_once\nHeimdal krb5_init_context\nother.so connect",
        "libxpc.dylib xpc_connection_send_message\nGSS gss_acquire_cred\nother.so connect",
    ],
    "Objective-C +initialize": [
        "libsystem_kernel.dylib __abort_with_payload\nlibobjc.A.dylib performForkChildInitialize\nMetal MTLCreate",
    ],
    "unknown": [
        "libsystem_platform.dylib _platform_memmove\n_psycopg.cpython-311-darwin.so connection_setup"
    ],
}


@pytest.mark.parametrize(
    ("cause", "frames"), [(cause, one) for cause, many in FRAMES.items() for one in many]
)
def test_the_crashed_threads_frames_tell_the_cause(tmp_path: Path, cause: str, frames: str) -> None:
    [finding] = judge(ips(tmp_path / "python3.12-1.ips", frames)).findings
    assert finding.data["cause"] == cause
    assert ("PGGSSENCMODE=disable" in finding.remedy) is (cause == "libpq's GSS")
    assert "install" not in finding.remedy.replace("since before the installation", "")
    assert f", in a forked child: the cause is {cause} (" in finding.evidence
    assert ("native setproctitle can be behind it" in finding.evidence) is (cause != "setproctitle")


@pytest.mark.parametrize(("asi", "cause"), [({}, "unknown"), (FORKED, "setproctitle")])
def test_launch_services_tell_of_setproctitle_only_in_a_forked_child(
    tmp_path: Path, asi: object, cause: str
) -> None:
    frames = "libxpc.dylib xpc_connection_send_message\nLaunchServices _LSSetApplicationInformationItem\nAppKit init"
    [finding] = judge(ips(tmp_path / "a.ips", frames, asi)).findings
    assert finding.data["cause"] == cause


def test_objective_cs_note_tells_its_cause(tmp_path: Path) -> None:
    note = "+[NSNumber initialize] may have been in progress in another thread when fork() was called."
    path = ips(tmp_path / "a.ips", "libsystem_kernel.dylib __abort", {"libobjc.A.dylib": [note]})
    [finding] = judge(path).findings
    assert (finding.data["cause"], finding.data["forked"]) == ("Objective-C +initialize", True)
    assert "OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES" in finding.remedy


@pytest.mark.parametrize("cause", FRAMES)
@pytest.mark.parametrize("installed_at", [CRASHED_AT - 1, CRASHED_AT + 1])
def test_only_a_report_since_the_installation_needs_attention(
    tmp_path: Path, cause: str, installed_at: float
) -> None:
    [finding] = judge(ips(tmp_path / "a.ips", FRAMES[cause][0]), installed_at, "switch it on").findings
    since = installed_at < CRASHED_AT
    assert finding.severity == ("note" if not since else "error" if cause == "setproctitle" else "warning")
    assert ("switch it on" in finding.remedy) is (since and cause == "setproctitle")
    assert finding.data["counts"] == {"before": int(not since), "since": int(since), "undated": 0}


@pytest.mark.parametrize(
    ("cause", "asi", "number", "how", "source"),
    [
        ("setproctitle", {}, 1, "not forked", "dvarrazzo/py-setproctitle/issues/113"),
        ("libpq's GSS", FORKED, 2, "in a forked child", "ged/ruby-pg/issues/311"),
    ],
)
def test_a_finding_says_how_many_whose_and_how_and_where_to_read_on(
    tmp_path: Path, cause: str, asi: object, number: int, how: str, source: str
) -> None:
    for name in range(number):
        ips(tmp_path / f"{name}.ips", FRAMES[cause][0], asi)
    [finding] = judge(tmp_path).findings
    assert finding.evidence.partition("; ")[0] == (
        f"{number} crash report{'s' if number == 2 else ''} of a Python (the path is not told), {how}: the cause is"
        f" {cause} ({number} since the shim was installed, 0 before, 0 undated)"
    )
    assert finding.sources == (source,)
    assert finding.details == tuple(str(tmp_path / f"{name}.ips") for name in range(number))


def test_a_fork_is_told_by_the_termination_too(tmp_path: Path) -> None:
    ended = {"reasons": ["crashed on child side of fork pre-exec"]}
    [finding] = judge(ips(tmp_path / "a.ips", FRAMES["_scproxy"][0], {}, termination=ended)).findings
    assert finding.data["forked"] is True


def test_without_a_capture_time_that_of_the_header_counts(tmp_path: Path) -> None:
    path = ips(tmp_path / "a.ips", FRAMES["setproctitle"][0], captureTime=None)
    [finding] = judge(path).findings
    assert finding.data["counts"] == {"before": 0, "since": 1, "undated": 0}


@pytest.mark.parametrize("cause", [cause for cause in FRAMES if cause != "setproctitle"])
def test_fork_is_not_blamed_where_there_was_none(tmp_path: Path, cause: str) -> None:
    [finding] = judge(ips(tmp_path / "a.ips", FRAMES[cause][0], {})).findings
    assert finding.severity == "note" and finding.data["forked"] is False
    assert "had not forked" in finding.evidence and "the cause is" not in finding.evidence
    assert "export" not in finding.remedy


def test_a_report_without_a_time_is_undated_and_needs_no_attention(tmp_path: Path) -> None:
    path = ips(tmp_path / "a.ips", FRAMES["setproctitle"][0], captureTime="soon")
    os.utime(path, (4e9, 4e9))
    [finding] = judge(path).findings
    assert finding.severity == "note" and finding.data["counts"] == {"before": 0, "since": 0, "undated": 1}


@pytest.mark.parametrize(
    ("executable", "whose", "severity"),
    [
        (sys.executable, module.OURS, "error"),
        (f"{sys.base_prefix}/Resources/Python.app/Contents/MacOS/Python", module.OURS, "error"),
        ("/opt/elsewhere/bin/python3.12", module.ANOTHERS, "note"),
        ("/Users/USER/*/python3.12", module.UNTOLD, "error"),
        (None, module.UNTOLD, "error"),
    ],
    ids=["this environment's", "its framework's", "another's", "hidden in part", "not told"],
)
def test_whose_process_it_was_is_told(
    tmp_path: Path, executable: str | None, whose: str, severity: str
) -> None:
    path = ips(tmp_path / "a.ips", FRAMES["setproctitle"][0], procPath=executable)
    [finding] = judge(path).findings
    assert (finding.data["whose"], finding.severity) == (whose, severity)


@pytest.mark.parametrize("told", ["app_name", "name", "procName", "image", ""])
def test_a_report_is_of_python_if_any_of_its_names_says_so(tmp_path: Path, told: str) -> None:
    names = dict.fromkeys(("app_name", "name", "procName", "image"), "x")
    names.update({told: "Python"} if told else {})
    header = {"app_name": names["app_name"], "name": names["name"]}
    body = {"procName": names["procName"], "usedImages": [{"name": names["image"]}]}
    thread = {"frames": [{"imageIndex": 0}]}
    path = tmp_path / "a.ips"
    path.write_text(f"{json.dumps(header)}\n{json.dumps({**body, 'faultingThread': 0, 'threads': [thread]})}")
    assert len(judge(path).findings) == bool(told)


# --- what was read -----------------------------------------------------------------------------


def test_a_directory_its_retired_one_and_what_was_left_out_are_told(tmp_path: Path) -> None:
    (tmp_path / "Retired").mkdir()
    shutil.copy(DATA / "python3.12-airflow45124.ips", tmp_path / "Retired")
    shutil.copy(DATA / "python3.12-kalite2844.ips", tmp_path)
    (tmp_path / "Python_2019-01-01.crash").write_text("Process: Python [1]")
    other = ips(
        tmp_path / "Safari.ips", "libsystem_c.dylib abort", procName="Safari", usedImages=[{"name": "S"}] * 2
    )
    other.write_text(other.read_text().replace("python3.12", "Safari"))
    (tmp_path / "notes.txt").touch()
    answer = judge(tmp_path)
    assert {finding.data["cause"] for finding in answer.findings} == {"setproctitle", "_scproxy"}
    assert answer.looked_at.startswith(f"read 2 crash reports in {tmp_path}; 1 not read: ")
    assert "a .crash report has another format" in answer.looked_at
    assert "1 not read: of another program" in answer.looked_at
    assert sorted(read.path.name for read in answer.read if not read.skipped) == [
        "python3.12-airflow45124.ips",
        "python3.12-kalite2844.ips",
    ]


def test_a_crash_file_that_is_named_is_said_not_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "Python_2019-01-01.crash"
    path.write_text("Process: Python [1]")
    answer = judge(path)
    assert answer.looked_at == (
        f"read 0 crash reports in {path}; 1 not read: a .crash report has another format"
    )
    assert [(read.path, bool(read.skipped)) for read in answer.read] == [(path, True)]


def test_where_there_are_only_crash_files_that_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "Python_2019-01-01.crash").write_text("Process: Python [1]")
    paths = (str(tmp_path / "Python_2019-01-01.crash"),)
    why = "1 not read: a .crash report has another format"
    told: dict[str, object] = {"cause": "not read"}
    assert judge(tmp_path).findings == [Finding("note", why, "open it in Console", (), paths, told)]


def test_malformed_reports_are_counted_together_whatever_is_wrong_with_them(tmp_path: Path) -> None:
    for number, content in enumerate(("", "{}", "{}\n{}")):
        (tmp_path / f"Python-{number}.ips").write_text(content)
    assert judge(tmp_path).looked_at == (
        f"read 0 crash reports in {tmp_path}; 3 not read: malformed or truncated"
    )


def test_one_report_is_not_counted_as_many(tmp_path: Path) -> None:
    shutil.copy(DATA / "python3.12-kalite2844.ips", tmp_path)
    assert judge(tmp_path).looked_at == f"read 1 crash report in {tmp_path}"


@pytest.mark.parametrize("inside", ["", "Retired"])
def test_a_directory_that_may_not_be_read_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    (tmp_path / "Retired").mkdir()
    listed = Path.iterdir

    def refuse(path: Path) -> Any:
        if path == tmp_path / inside:  # Tests may run as root, whom no permission stops.
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    answer = judge(tmp_path)
    assert answer.read == [Read(tmp_path / inside, 0, "Permission denied")]
    assert answer.looked_at.endswith("1 not read: Permission denied")
    [finding] = answer.findings
    assert finding.details == (str(tmp_path / inside),) and "Permission denied" in finding.evidence


@pytest.mark.parametrize("method", ["iterdir", "read_bytes"])
def test_an_error_without_the_systems_words_is_told_in_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(path: Path) -> Any:
        raise OSError("no luck")

    path = Path(shutil.copy(DATA / "python3.12-kalite2844.ips", tmp_path))
    monkeypatch.setattr(Path, method, fail)
    failed = [path] if method == "read_bytes" else [tmp_path, tmp_path / "Retired"]
    assert judge(tmp_path).read == [Read(path, 0, "no luck") for path in failed]


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_larger_than_any_report_is_not_read(tmp_path: Path, more: int) -> None:
    path = tmp_path / "python.ips"
    path.touch()
    os.truncate(path, 64 * 2**20 + more)
    [read] = judge(tmp_path).read
    assert read.skipped.startswith("not a regular file of a report's size" if more else "malformed")


@pytest.mark.parametrize("name", ["Python-1.ips", "celery.ips", "a.ips", "mypython.ips", "xgunicorn.ips"])
@pytest.mark.parametrize("named", [True, False])
def test_only_what_is_of_python_or_was_named_is_told_to_be_malformed(
    tmp_path: Path, name: str, named: bool
) -> None:
    path = tmp_path / name
    path.write_text("{}\n{}")
    tells = named or name not in ("a.ips", "xgunicorn.ips")
    skipped = "malformed or truncated: KeyError 'usedImages'" if tells else "of another program"
    assert judge(path if named else tmp_path).read == [Read(path, 0, skipped)]


@pytest.mark.parametrize("exists", [True, False])
def test_where_there_is_no_report_that_is_said(tmp_path: Path, exists: bool) -> None:
    answer = judge(tmp_path if exists else tmp_path / "none")
    assert answer.findings == []
    assert answer.looked_at.startswith("read 0 crash reports in ")
    assert ("No such file" in answer.looked_at) is not exists


WHOLE = (DATA / "python3.12-airflow45124.ips").read_text()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\0\1\2",
        WHOLE[: len(WHOLE) // 2],
        WHOLE.partition("\n")[0],
        WHOLE.partition("\n")[2],
        "[]\n[]",
        "{}\n{}",
        "1\n1",
        WHOLE.replace('"faultingThread": 0', '"faultingThread": 9'),
        WHOLE.replace('"imageIndex": 1,', '"imageIndex": "x",'),
        WHOLE.replace('"usedImages"', '"otherImages"'),
        "{}\n" + "[" * 100_000,
    ],
    ids=[
        "empty",
        "binary",
        "cut",
        "header",
        "body",
        "lists",
        "objects",
        "numbers",
        "thread",
        "image",
        "images",
        "deep",
    ],
)
def test_a_malformed_or_truncated_report_is_told_as_such(tmp_path: Path, content: str) -> None:
    (tmp_path / "python-1.ips").write_text(content)
    answer = judge(tmp_path)
    [finding] = answer.findings
    assert finding.severity == "note" and "malformed or truncated" in finding.evidence
    assert finding.details == (str(tmp_path / "python-1.ips"),)
    assert answer.read[0].skipped


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "asi",
    "captureTime",
    "faultingThread",
    "procName",
    "procPath",
    "termination",
    "threads",
    "usedImages",
]


@given(st.dictionaries(st.sampled_from(KEYS), JSON), JSON)
def test_no_json_raises(
    tmp_path_factory: pytest.TempPathFactory, odd: dict[str, object], header: object
) -> None:
    path = ips(tmp_path_factory.getbasetemp() / "odd.ips", FRAMES["unknown"][0], **{"asi": {}, **odd})
    judge(path)
    path.write_text(json.dumps(header) + "\n" + path.read_text().partition("\n")[2])
    judge(path)


@given(st.binary(max_size=300))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "python-any.ips"
    path.write_bytes(content)
    judge(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "python.ips")
    answer = judge(tmp_path)
    assert [bool(read.skipped) for read in answer.read] == [True]
    assert [finding.severity for finding in answer.findings] == ["note"]
