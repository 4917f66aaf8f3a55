"""What is measured at interpreter start and in logs, and the goals, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

VERSIONS = ("3.11", "3.13", "3.15")
OURS = "OURS"  # stands for the wheel of this checkout
SETPROCTITLE = "setproctitle==1.3.8"
AIRFLOW = ("--exclude-newer", "2025-07-15", "apache-airflow==3.0.2")

INACTIVE = "inactive"  # asked, and found nothing to do
ACTIVE = "active"  # changed something in the interpreter


@dataclass(frozen=True)
class Start:
    """An environment whose start is measured: what is installed, and the startup files added by hand.

    It is compared with its twin in which every line of the startup files is behind a #, or, with
    `over` "no file", with one without them. `moved` takes files of the wheel to where they work.
    """

    name: str
    state: str = ""
    requirements: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    moved: Mapping[str, str] = field(default_factory=dict)
    macos: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    over: str = "made inert"


STARTS = [
    Start("no .pth", over=""),
    Start("comment-only .pth", files={"comment.pth": "# This line is skipped.\n"}, over="no file"),
    Start("`import sys` .pth", files={"import_sys.pth": "import sys\n"}),
    Start("ours, inactive", INACTIVE, [OURS]),
    Start("ours, off", INACTIVE, [OURS], macos=True, environ={"AIRFLOW_SETPROCTITLE_SHIM": "off"}),
    Start("ours, active", ACTIVE, [OURS], macos=True),
    Start("autowrapt 2.0.0", INACTIVE, ["--no-deps", "autowrapt==2.0.0"]),
    Start("coverage 7.17.3", INACTIVE, ["--no-deps", "coverage==7.17.3"]),
    Start("setuptools 84.2.1 (distutils-precedence)", ACTIVE, ["setuptools==84.2.1"]),
    Start(
        "virtualenv 21.15.8 (_virtualenv.pth)",
        ACTIVE,
        ["--no-deps", "virtualenv==21.15.8"],
        files={"_virtualenv.pth": "import _virtualenv\n"},
        moved={"virtualenv/create/via_global_ref/_virtualenv.py": "_virtualenv.py"},
    ),
    Start(
        "DataHub 1.7.0.17 (_setproctitle_patch)",
        ACTIVE,
        ["--no-deps", "acryl-datahub==1.7.0.17", SETPROCTITLE],
        # It asks platform.system() too.
        files={
            "aab_darwin.pth": "import os; os.uname = lambda real=os.uname(): type(real)(('Darwin', *real[1:]))\n"
        },
        # The wheel has it below a build directory's name, where site does not look.
        moved={"tmp/*/lib/*/site-packages/datahub_setproctitle_patch.pth": "datahub_setproctitle_patch.pth"},
        macos=True,
    ),
    *(
        Start(
            "provide-testkit 0.5.3",
            state,
            ["provide-testkit==0.5.3"],
            moved={"provide/testkit/provide_testkit_init.pth": "provide_testkit_init.pth"},
            environ=environ,
        )
        for state, environ in ((INACTIVE, {}), (ACTIVE, {"PYTEST_VERSION": "9"}))
    ),
    Start("pip-system-certs 5.3", ACTIVE, ["pip-system-certs==5.3"]),
]


# A line of each kind of log, see programs/logs.py.
LINES = {
    "gunicorn": "[{at:%Y-%m-%d %H:%M:%S} +0000] [1] [ERROR] Worker (pid:{pid}) was sent SIGSEGV!",
    "celery": "[{at:%Y-%m-%d %H:%M:%S},{ms:03}: ERROR/MainProcess] Process 'ForkPoolWorker-{pid}' pid:{pid} exited with 'signal 11 (SIGSEGV)'",
    "airflow 2": "[{at:%Y-%m-%dT%H:%M:%S}.{ms:03}+0000] {{manager.py:285}} ERROR - DagFileProcessorManager (PID={pid}) exited with exit code -11 - re-launching",
    "airflow 3": "{at:%Y-%m-%d %H:%M:%S} [info     ] Process exited                 [supervisor] exit_code=<Negsignal.SIGSEGV: -11> pid={pid} signal_sent=SIGSEGV",
    "shell": "/usr/local/bin/run.sh: line 3: {pid} Segmentation fault: 11  gunicorn app",
    "no death": "[{at:%Y-%m-%d %H:%M:%S} +0000] [{pid}] [INFO] Booting worker with pid: {pid}",
}


@dataclass(frozen=True)
class Goal:
    """The most that a figure may be, as a ratio of its base or, where it has none, as it is."""

    section: str
    what: str
    measure: str  # "instructions", "seconds" or "memory"
    limit: float
    text: str


GOALS = [
    Goal("start 3.11", "ours, inactive", "instructions", 1.009, "<= +0.9 %"),
    Goal("start 3.11", "ours, active", "instructions", 1.035, "<= +3.5 %"),
    Goal("start 3.15", "ours, inactive", "instructions", 1.006, "<= +0.6 %"),
    Goal("start 3.15", "ours, active", "instructions", 1.035, "<= +3.5 %"),
    *(
        Goal(f"start {version}", f"ours, {state}", "memory", 1.01, "<= +1 %")
        for version in VERSIONS
        for state in (INACTIVE, ACTIVE)
    ),
    Goal("import", "with logging loaded", "instructions", 0.4, "<= 0.40"),
    Goal("import", "cold", "instructions", 1 / 50, "<= 1/50"),
    Goal("call", "ours", "seconds", 1 / 2, "<= 1/2"),
    Goal("miss", "find_spec() of another name", "instructions", 1.2, "<= 1.2x"),
    Goal("miss", "over `import airflow` 3.0.2", "instructions", 0.001, "< 0.1 %"),
    *(
        Goal("distributions", f"600, {state}", "instructions", 1.01, "<= +1 %")
        for state in (INACTIVE, ACTIVE)
    ),
    Goal("late", "2,000 modules", "seconds", 0.020, "< 20 ms"),
    *(Goal("logs", f"100 MB, {kind}", "seconds", 20, "< 20 s") for kind in LINES if kind != "no death"),
]
