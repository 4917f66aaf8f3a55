"""Judges the facts of environment.py: findings, each with its evidence and one remedy. No output."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import multiprocessing
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from .. import OFF, REPLACEMENT, VARIABLE, is_active, setting
from . import environment

SEVERITIES = ("error", "warning", "note")  # processes can die; look at it; good to know


@dataclass(frozen=True)
class Finding:
    """Something worth knowing: how it shows, and what mends it."""

    severity: str  # of SEVERITIES
    evidence: str  # a sentence
    remedy: str  # a command where there is one
    sources: tuple[str, ...] = ()  # paths on github.com; links in what diagnose() returns
    details: tuple[str, ...] = ()  # file:line, counts, paths
    id: str = ""  # the check that found it, of CHECKS


COMMAND = f"{sys.executable} -m airflow_setproctitle_shim"
PIP = f"{sys.executable} -m pip install"
if importlib.util.find_spec("pip") is None:  # as in environments made by uv
    PIP = f"uv pip install --python {sys.executable}"
REINSTALL = f"{PIP} --force-reinstall --no-deps"
UPSTREAM = "dvarrazzo/py-setproctitle/issues/113"
CRASH_REPORTED = ("apache/airflow/issues/55838", "benoitc/gunicorn/issues/3021", UPSTREAM)


def startup_file_skipped() -> Finding | None:
    """Return why site did not run the startup file that this Python reads, or None if it should have."""
    file = next((file for file in environment.startup_files() if file.used), None)
    remedy = f"{REINSTALL} {environment.DISTRIBUTION}"
    if file is None:
        evidence = f"{environment.DISTRIBUTION} is importable but not installed"
    elif sys.flags.no_site:
        evidence, remedy = f"Python was started with -S, which skips {file.path}", "start Python without -S"
    elif not file.exists:
        evidence = f"{file.path} is missing"
    elif file.hidden:
        evidence = f"{file.path} is hidden by macOS, and Python skips hidden startup files"
        remedy = f"chflags -R nohidden {sys.prefix}"
    elif not file.in_site_directory:
        evidence = f"{file.path} lies where site does not look for startup files"
        remedy = f"{COMMAND} sitecustomize --write {file.path.parent}"
    elif not file.intact:
        evidence = f"{file.path} is not the file that was installed"
    else:
        return None
    return Finding("error", evidence, remedy, ("python/cpython/issues/113659",))


def off_on_macos() -> Finding | None:
    """Return why the shim is off in this interpreter although it runs on macOS, or None."""
    if is_active() or sys.platform != "darwin":
        return None
    if setting() in OFF:
        evidence = f"the shim is off, because {VARIABLE} is {os.environ[VARIABLE]!r}"
        return Finding("note", evidence, f"unset {VARIABLE}")
    evidence = "the shim is off though its startup file is in order: something switched it off again"
    remedy = f"{sys.executable} -v -c pass 2>&1 | grep -i -e shim -e pth"
    return startup_file_skipped() or Finding("error", evidence, remedy)


def status() -> tuple[bool, str, Finding | None]:
    """Return whether the shim is on in this interpreter, why, and what should be mended, if anything."""
    if off := off_on_macos():
        return False, off.evidence, off
    missing = next(removed(Scope([], Path())), None)
    if not is_active():
        return False, f"this is {sys.platform}, and setproctitle is dangerous on macOS only", missing
    origin = environment.origin_of_setproctitle()
    if origin == REPLACEMENT:
        return True, "`import setproctitle` gets the shim's safe module", missing
    evidence = f"`import setproctitle` runs {origin}, found by a finder before the shim's"
    return True, "but not asked first", Finding("error", evidence, f"{COMMAND} doctor --only imports")


def unsafe_on_macos(version: str) -> bool:
    """Return whether this setproctitle crashes after fork on macOS: 1.3.0 and later (py-setproctitle #113)."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]] >= [1, 3]


class Sign(NamedTuple):
    """A kind of trouble in a component's logs: where first, how often before and since the installation."""

    first: str
    counts: list[int]


@dataclass
class Scope:
    """Where to look, whom to tell how far it is, and what the logs hold once they were read."""

    logs: list[Path]  # files and directories
    crash_reports: Path
    progress: Callable[[str], None] = lambda _: None
    unread: list[str] = field(default_factory=list)

    @functools.cached_property
    def signs(self) -> dict[tuple[str, str], Sign]:
        """The signs of trouble in the logs by kind and component."""
        found: dict[tuple[str, str], Sign] = {}
        installed = environment.installed_at()
        for path, component in environment.log_files(self.logs):
            self.progress(f"reading {path}")
            try:
                for seen in environment.sightings(path, component):
                    sign = found.setdefault((seen.kind, seen.component), Sign(seen.where, [0, 0]))
                    sign.counts[seen.when >= installed] += 1
            except OSError as error:
                self.unread.append(str(error))
        return found


def default_logs() -> list[Path]:
    """Return where Airflow's logs lie: its log folder, and what `airflow ... > standalone.log` made."""
    home = environment.airflow_home()
    folder = next(iter(environment.airflow_setting("logging", "base_log_folder").values()), home / "logs")
    files = (path for end in ("log", "err", "out") for path in sorted(home.glob(f"*.{end}")))
    return [Path(folder).expanduser(), *files]


def startup(scope: Scope) -> Iterator[Finding]:
    """Is the shim on, and was its startup file run?"""
    if finding := off_on_macos():
        yield finding


def crashes(scope: Scope) -> Iterator[Finding]:
    """Processes that died by SIGSEGV, counted in the logs by component."""
    before, after, details = 0, 0, []
    for component in sorted({component for kind, component in scope.signs if kind != "refused"}):
        signs = [scope.signs[key] for kind in ("death", "dump") if (key := (kind, component)) in scope.signs]
        # A death may show as a line, as a dump, or as both.
        old, new = (max(sign.counts[since] for sign in signs) for since in (0, 1))
        details.append(f"{component}: {old} before, {new} since; first at {signs[0].first}")
        before, after = before + old, after + new
    if details:
        evidence = f"{_many(after, 'death')} by SIGSEGV since the shim was installed, {before} before"
        remedy = "restart Airflow with the shim on, then run the doctor again"
        off = off_on_macos()
        if off or setting() in OFF:
            remedy = f"{off.remedy if off else f'unset {VARIABLE}'}; then restart Airflow"
        yield Finding("error" if after else "note", evidence, remedy, CRASH_REPORTED, tuple(details))
    if scope.unread:
        evidence = f"{_many(len(scope.unread), 'log')} could not be read"
        yield Finding("note", evidence, "run the doctor as a user who may", details=tuple(scope.unread))


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def imports(scope: Scope) -> Iterator[Finding]:
    """Who imports setproctitle here, and whether a test keeps macOS from it."""
    found, skipped = environment.imports_of_setproctitle(scope.progress)
    reached = [place for place in found if not place.guarded]
    if not reached:
        return
    names = ", ".join(sorted({place.package for place in reached}))
    evidence = f"{_many(len(reached), 'import')} of setproctitle that macOS gets to ({names})"
    details = [f"{p.path}:{p.line}{' (macOS does not get to it)' if p.guarded else ''}" for p in found]
    details += [f"{_many(skipped, 'file')} could not be read or parsed"] if skipped else []
    off = off_on_macos() or Finding("note", "", "nothing to do: on macOS, the shim serves its safe module")
    yield Finding(off.severity, evidence, off.remedy, details=tuple(details))


PATCH = re.compile(rb"from setproctitle import setproctitle\s+except ImportError:\s+def setproctitle\(")


def edited(scope: Scope) -> Iterator[Finding]:
    """Files of Airflow that were edited by hand."""
    for name, dist in environment.packages().items():
        if not name.startswith("apache-airflow"):
            continue
        scope.progress(f"edited by hand: {name}")
        if changed := environment.edited_files(dist):
            evidence = f"{_many(len(changed), 'file')} of {name} {dist.version}, edited by hand"
            if patched := sum(bool(PATCH.search(environment.read(path))) for path in changed):
                evidence += f"; {patched} to make setproctitle optional, which the shim makes needless"
            remedy = f"{REINSTALL} {name}=={dist.version}"
            yield Finding("warning", evidence, remedy, details=tuple(map(str, changed)))


def removed(scope: Scope) -> Iterator[Finding]:
    """setproctitle deleted by hand though something installed requires it."""
    dist = environment.installed("setproctitle")
    # Not importlib's find_spec(): while the shim is on, that finds the shim's module.
    spec = PathFinder.find_spec("setproctitle")
    if dist and spec and spec.origin:
        return
    if names := environment.requirers("setproctitle"):
        state = "lacks files" if dist else "is not installed"
        evidence = f"setproctitle {state}, though {names[0]} requires it; with the shim it is safe to have"
        yield Finding("warning", evidence, f"{REINSTALL} setproctitle", details=tuple(names))


PAGES = {"2": ("webserver", "/health"), "3": ("api", "/api/v2/monitor/health")}  # by Airflow's version
PATIENCE = 5.0  # seconds


def health(scope: Scope) -> Iterator[Finding]:
    """What Airflow's health page says, if it runs."""
    airflow = environment.installed("apache-airflow-core") or environment.installed("apache-airflow")
    if airflow is None or airflow.version[0] not in PAGES:
        return
    section, page = PAGES[airflow.version[0]]
    configured = environment.airflow_setting(section, "base_url").values()
    url = next(iter(configured), "http://localhost:8080").rstrip("/") + page
    scope.progress(f"asking {url}")
    try:
        code, body = environment.get(url, PATIENCE)
        sick = [name for name, part in json.loads(body).items() if part["status"] == "unhealthy"]
        if code == 200 and not sick:
            return
        trouble = f"says that {' and '.join(sick)} is unhealthy" if sick else f"answered with status {code}"
    except socket.timeout:
        trouble = f"gave no answer within {PATIENCE:g} s"
    except OSError:
        return  # Airflow does not run.
    except Exception:  # noqa: BLE001  # neither HTTP nor a body need be what they should be
        trouble = "gave an answer that is not Airflow's"
    yield Finding("warning", f"{url} {trouble}", f"{COMMAND} doctor --only crashes")


def execution_api(scope: Scope) -> Iterator[Finding]:
    """Workers that the execution API refused with 401 Unauthorized."""
    refused = {component: sign for (kind, component), sign in scope.signs.items() if kind == "refused"}
    if not refused:
        return
    secrets = environment.airflow_setting("api_auth", "jwt_secret")
    state = f"is set in {' and '.join(secrets)}; every component must see the same, and the same time of day"
    if not secrets:
        state = "is set nowhere, so every component makes up its own"
    elif len(set(secrets.values())) > 1:
        state = f"differs between {' and '.join(secrets)}"
    number = sum(sum(sign.counts) for sign in refused.values())
    yield Finding(
        "warning",
        f"{_many(number, '401 answer')} of the execution API to workers; [api_auth] jwt_secret {state}",
        "export AIRFLOW__API_AUTH__JWT_SECRET=... with one value for all components; compare their clocks",
        tuple(f"apache/airflow/issues/{issue}" for issue in (49871, 51235, 47873)),
        tuple(f"{component}: first at {sign.first}" for component, sign in refused.items()),
    )


SETPROCTITLE = Finding("error", "the cause is setproctitle", f"{COMMAND} status", (UPSTREAM,))
BEFORE = Finding("note", "the cause is setproctitle, before the shim", f"{COMMAND} status", (UPSTREAM,))
SCPROXY = Finding("warning", "the cause is _scproxy", "export NO_PROXY='*'", ("python/cpython/issues/58037",))
NEWER = f"{PIP} 'apache-airflow>=3.3'"
DNS = Finding("warning", "the cause is Security or DNS", NEWER, ("apache/airflow/pull/69008",))
FORK_SAFETY, INITIALIZE = "OBJC_DISABLE_INITIALIZE_FORK_SAFETY", ("python/cpython/issues/77906",)
OBJC = Finding("warning", "the cause is Objective-C's initialize", f"export {FORK_SAFETY}=YES", INITIALIZE)
UNKNOWN = Finding("warning", "the cause is not known", "open them in Console", INITIALIZE)
BROKEN = Finding("note", "malformed or truncated", "open them in Console")
# How they show in the crashed thread's lines "image symbol" and the system's notes. The first that fits
# counts: setproctitle's crash may go through the others' code, and theirs not through its.
CAUSES = (
    (r"(?m)^_setproctitle\.| _LS(A|SetA)pplication", SETPROCTITLE),
    (r"(?m)^_scproxy\.|SCDynamicStoreCopyProxies", SCPROXY),
    (r"(?m)^(Security|Network|libnetwork\.dylib) |getaddrinfo", DNS),
    (r"performForkChildInitialize|objc_initializeAfterForkError|when fork\(\) was called", OBJC),
    ("", UNKNOWN),
)


def crash_reports(scope: Scope) -> Iterator[Finding]:
    """macOS crash reports of Python, by their cause."""
    causes: dict[Finding, list[str]] = {}
    for path in sorted(scope.crash_reports.glob("*[Pp]ython*.ips")):
        scope.progress(f"reading {path}")
        try:
            text, when = environment.crash_report(path)
        except (OSError, ValueError) as error:
            causes.setdefault(BROKEN, []).append(f"{path}: {error}")
            continue
        cause = next(cause for sign, cause in CAUSES if re.search(sign, text))
        if cause is SETPROCTITLE and when < environment.installed_at():
            cause = BEFORE
        causes.setdefault(cause, []).append(str(path))
    for cause, details in causes.items():
        evidence = f"{_many(len(details), 'crash report')} of Python: {cause.evidence}"
        yield dataclasses.replace(cause, evidence=evidence, details=tuple(details))


def surroundings(scope: Scope) -> Iterator[Finding]:
    """Settings of this environment that matter after a fork on macOS."""
    if sys.platform != "darwin":
        return
    dist = environment.installed("setproctitle")
    if dist and unsafe_on_macos(dist.version) and (off := off_on_macos()):
        evidence = f"setproctitle {dist.version} crashes after fork on macOS, and the shim is off"
        yield Finding(off.severity, evidence, off.remedy, CRASH_REPORTED)
    if os.environ.get("NO_PROXY", os.environ.get("no_proxy")) != "*":
        evidence = "NO_PROXY is not '*': HTTP requests of forked processes may die in _scproxy"
        yield dataclasses.replace(SCPROXY, severity="note", evidence=evidence)
    if os.environ.get(FORK_SAFETY):
        evidence = f"{FORK_SAFETY} hides aborts of Objective-C, not setproctitle's crash"
        yield Finding("note", evidence, "leave it; the shim does not need it")
    methods = {"this Python": multiprocessing.get_start_method()}
    methods.update(environment.airflow_setting("core", "mp_start_method"))
    if forking := [where for where, method in methods.items() if method == "fork"]:
        evidence = f"multiprocessing starts processes by fork, says {' and '.join(forking)}"
        yield Finding("note", evidence, "use spawn where the program lets you")


CHECKS: dict[str, Callable[[Scope], Iterator[Finding]]] = {
    "startup": startup,
    "crashes": crashes,
    "crash-reports": crash_reports,
    "imports": imports,
    "edited": edited,
    "removed": removed,
    "health": health,
    "execution-api": execution_api,
    "environment": surroundings,
}


def diagnose(scope: Scope, names: list[str]) -> list[Finding]:
    """Return the findings of the checks named, the most severe first. A check that fails is a finding."""
    found: list[Finding] = []
    for name in names:
        try:
            for finding in CHECKS[name](scope):
                links = tuple(f"https://github.com/{source}" for source in finding.sources)
                found.append(dataclasses.replace(finding, id=name, sources=links))
        except Exception as error:  # noqa: BLE001  # the other checks' findings must still be shown
            evidence = f"the check {name} failed: {type(error).__name__}: {error}"
            found.append(Finding("warning", evidence, "please report this line", id=name))
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
