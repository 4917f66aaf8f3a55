"""Judges the facts of environment.py: findings, each with its evidence and one remedy. No output."""

from __future__ import annotations

import collections
import importlib.util
import json
import multiprocessing
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from importlib_metadata import PackagePath

from . import OFF, REPLACEMENT, VARIABLE, environment, is_active, setting


@dataclass(frozen=True)
class Finding:
    """Something that needs attention: what it is, how it shows, and what mends it."""

    id: str
    severity: str  # of SEVERITIES
    evidence: str  # a sentence
    remedy: str  # a command where there is one
    sources: tuple[str, ...] = ()  # links
    details: tuple[str, ...] = ()  # file:line, counts, paths


SEVERITIES = ("error", "warning", "note")  # processes can die; look at it; good to know
COMMAND = f"{sys.executable} -m airflow_setproctitle_shim"
# uv's environments come without pip.
PIP = f"{sys.executable} -m pip install"
if importlib.util.find_spec("pip") is None:
    PIP = f"uv pip install --python {sys.executable}"
REINSTALL = f"{PIP} --force-reinstall --no-deps"
GITHUB = "https://github.com/"


def startup_file_skipped() -> Finding | None:
    """Return why site did not run the startup file that this Python reads, or None if it should have."""
    file = next((file for file in environment.startup_files() if file.used), None)
    reinstall = f"{REINSTALL} {environment.DISTRIBUTION}"
    if file is None:
        evidence = f"{environment.DISTRIBUTION} is importable but not installed"
        remedy = reinstall
    elif sys.flags.no_site:
        evidence = f"Python was started with -S, which skips {file.path}"
        remedy = "start Python without -S"
    elif not file.exists:
        evidence, remedy = f"{file.path} is missing", reinstall
    elif file.hidden:
        evidence = f"{file.path} is hidden by macOS, and Python skips hidden startup files"
        remedy = f"chflags -R nohidden {sys.prefix}"
    elif not file.in_site_directory:
        evidence = f"{file.path} lies where site does not look for startup files"
        remedy = f"{COMMAND} sitecustomize --write {file.path.parent}"
    elif not file.intact:
        evidence, remedy = f"{file.path} is not the file that was installed", reinstall
    else:
        return None
    return Finding("startup-file", "error", evidence, remedy, (f"{GITHUB}python/cpython/issues/113659",))


def off_on_macos() -> Finding | None:
    """Return why the shim is off in this interpreter although it runs on macOS, or None."""
    if is_active() or sys.platform != "darwin":
        return None
    if setting() in OFF:
        evidence = f"the shim is off, because {VARIABLE} is {os.environ[VARIABLE]!r}"
        return Finding("switched-off", "error", evidence, f"unset {VARIABLE}")
    return startup_file_skipped() or Finding(
        "off",
        "error",
        "the shim is off though its startup file is in order: something switched it off again",
        f"{sys.executable} -v -c pass 2>&1 | grep -i -e shim -e pth",
    )


def unsafe_on_macos(version: str) -> bool:
    """Return whether this setproctitle crashes after fork on macOS: 1.3.0 and later (py-setproctitle #113)."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]] >= [1, 3]


def status() -> tuple[bool, str, Finding | None]:
    """Return whether the shim is on in this interpreter, why, and what should be mended, if anything."""
    on = is_active()
    missing = next(removed(Scope([], Path())), None)
    if not on and sys.platform != "darwin":
        return on, f"this is {sys.platform}, and setproctitle is dangerous on macOS only", missing
    if off := off_on_macos():
        return on, off.evidence, off
    origin = environment.origin_of_setproctitle()
    if origin != REPLACEMENT:
        finding = Finding("passed-over", "error", f"`import setproctitle` runs {origin}", f"{COMMAND} doctor")
        return on, "but another finder answers before the shim", finding
    return on, "`import setproctitle` gets the shim's safe module", missing


@dataclass
class Scope:
    """Where to look, and whom to tell how far it is."""

    logs: list[Path]  # files and directories
    crash_reports: Path
    progress: Callable[[str], None] = lambda _: None
    counts: collections.Counter[tuple[str, str, bool]] = field(default_factory=collections.Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def read_logs(self) -> None:
        """Count what the logs hold, once: by kind, component and whether the shim was installed by then."""
        since = environment.installed_at() or 0
        logs, self.logs = self.logs, []
        for path, component in (found for root in logs for found in _files(root)):
            self.progress(f"reading {path}")
            try:
                for seen in environment.sightings(path, component):
                    self.counts[seen.kind, seen.component, seen.when >= since] += 1
                    self.first.setdefault((seen.kind, seen.component), seen.where)
            except OSError as error:
                self.unreadable.append(f"not read: {path} ({error.strerror})")


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the regular files at or below a path, each with the name of what it is the log of."""
    if root.is_file():
        yield root, root.stem
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in sorted(names)):
            if stat.S_ISREG(path.lstat().st_mode):
                inside = path.relative_to(root)
                yield path, inside.parts[0] if len(inside.parts) > 1 else path.stem


def default_logs() -> list[Path]:
    """Return where Airflow's logs lie: `logs` in its home, and what `airflow ... > standalone.log` made."""
    home = environment.airflow_home()
    return [home / "logs", *(path for end in ("log", "err", "out") for path in sorted(home.glob(f"*.{end}")))]


def startup(scope: Scope) -> Iterator[Finding]:
    """Is the shim on, and was its startup file run?"""
    if finding := off_on_macos():
        yield finding


def crashes(scope: Scope) -> Iterator[Finding]:
    """Processes that died by SIGSEGV, counted in the logs by component."""
    scope.read_logs()
    died: dict[bool, dict[str, int]] = {False: {}, True: {}}
    for (kind, component, since), count in sorted(scope.counts.items()):
        if kind != "refused":  # A death may show as a line, as a dump, or as both.
            died[since][component] = max(count, died[since].get(component, 0))
    before, after = sum(died[False].values()), sum(died[True].values())
    details = [
        f"{component}: {died[False].get(component, 0)} before, {died[True].get(component, 0)} since; first at "
        + (scope.first.get(("death", component)) or scope.first["dump", component])
        for component in sorted({**died[False], **died[True]})
    ]
    more = (tuple(f"{GITHUB}{issue}" for issue in ISSUES), (*details, *scope.unreadable))
    if after:
        evidence = f"{after} processes died by SIGSEGV since the shim was installed, {before} before"
        remedy = (
            f"restart what still runs without the shim; if it goes on: {COMMAND} doctor --only crash-reports"
        )
        if setting() in OFF:
            remedy = f"unset {VARIABLE}, then restart Airflow"
        elif off := off_on_macos():
            remedy = f"{off.remedy}; then restart Airflow"
        yield Finding("crashes", "error", evidence, remedy, *more)
    elif before:
        evidence = f"{before} processes died by SIGSEGV before the shim was installed, none since"
        yield Finding("crashes", "note", evidence, "restart Airflow, if you have not yet", *more)


ISSUES = (
    "apache/airflow/issues/55838",
    "benoitc/gunicorn/issues/3021",
    "dvarrazzo/py-setproctitle/issues/113",
)


def imports(scope: Scope) -> Iterator[Finding]:
    """Who imports setproctitle here, and whether a test keeps macOS from it."""
    found, skipped = environment.imports_of_setproctitle(scope.progress)
    open_to_macos = [place for place in found if not place.guarded]
    details = [f"{p.path}:{p.line}{' (not reached on macOS)' if p.guarded else ''}" for p in found]
    details += [f"{skipped} files could not be read or parsed"] if skipped else []
    if not open_to_macos:
        return
    names = ", ".join(sorted({place.package for place in open_to_macos}))
    evidence = f"{len(open_to_macos)} places import setproctitle on macOS too ({names})"
    off = off_on_macos()
    yield Finding(
        "imports",
        "error" if off else "note",
        evidence if off else f"{evidence}: with the shim on, each gets the safe module",
        off.remedy if off else "nothing to do",
        details=tuple(details),
    )


PATCH = re.compile(rb"from setproctitle import setproctitle\s+except ImportError:\s+def setproctitle\(")


def edited(scope: Scope) -> Iterator[Finding]:
    """Files of Airflow that were edited by hand."""
    for package in environment.packages()[0]:
        if not package.name.startswith("apache-airflow"):
            continue
        scope.progress(f"edited by hand: {package.name}")
        changed = [
            Path(str(file.locate())) for file in package.files if file.suffix == ".py" and _edited(file)
        ]
        if changed:
            patched = [path for path in changed if PATCH.search(environment.read(path))]
            evidence = f"{len(changed)} files of {package.name} {package.version} were edited by hand"
            if patched:
                evidence += (
                    f"; {len(patched)} of them make setproctitle optional, for which the shim is enough"
                )
            remedy = f"{REINSTALL} {package.name}=={package.version}"
            yield Finding("edited", "warning", evidence, remedy, details=tuple(map(str, changed)))


def _edited(file: PackagePath) -> bool:
    return Path(str(file.locate())).is_file() and not environment.is_intact(file)


def removed(scope: Scope) -> Iterator[Finding]:
    """setproctitle deleted by hand though something installed requires it."""
    dist = environment.installed("setproctitle")
    # Not importlib's find_spec(): while the shim is on, that finds the shim's module.
    spec = PathFinder.find_spec("setproctitle")
    if dist and spec and spec.origin:
        return
    if names := [f"{package.name} {package.version}" for package in environment.requirers("setproctitle")]:
        state = "lacks files" if dist else "is not installed"
        evidence = f"setproctitle {state}, though {names[0]} requires it; with the shim it is safe to have"
        yield Finding("removed", "warning", evidence, f"{REINSTALL} setproctitle", details=tuple(names))


PAGES = {"2": ("webserver", "web_server_port", "/health"), "3": ("api", "port", "/api/v2/monitor/health")}
PATIENCE = 5.0  # seconds


def health(scope: Scope) -> Iterator[Finding]:
    """What Airflow's health page says, if it runs."""
    airflow = environment.installed("apache-airflow-core") or environment.installed("apache-airflow")
    section, port_key, page = PAGES.get(airflow.version.partition(".")[0] if airflow else "", ("", "", ""))
    if not section:
        return
    port = next(iter(environment.airflow_setting(section, port_key).values()), "8080")
    configured = environment.airflow_setting(section, "base_url").values()
    url = next(iter(configured), f"http://localhost:{port}").rstrip("/") + page
    scope.progress(f"asking {url}")
    try:
        status, body = environment.get(url, PATIENCE)
        parts = json.loads(body)
        sick = [f"{name}: {part['status']}" for name, part in parts.items() if part["status"] == "unhealthy"]
        trouble = f"says {', '.join(sick)}" if sick else ""
    except socket.timeout:
        status, trouble = 0, f"gave no answer within {PATIENCE:.0f} s"
    except OSError:
        return  # Airflow does not run.
    except (ValueError, TypeError, KeyError, AttributeError):
        trouble = "gave an answer that is not Airflow's"
    if trouble or status != 200:
        trouble = trouble or f"answered with status {status}"
        yield Finding("health", "warning", f"{url} {trouble}", f"{COMMAND} doctor --only crashes")


def execution_api(scope: Scope) -> Iterator[Finding]:
    """Workers that the execution API refused with 401 Unauthorized."""
    scope.read_logs()
    refused = sum(count for (kind, _, _), count in scope.counts.items() if kind == "refused")
    if not refused:
        return
    secrets = environment.airflow_setting("api_auth", "jwt_secret")
    if not secrets:
        state = "is set nowhere, so every component makes up its own"
    elif len(set(secrets.values())) > 1:
        state = f"differs between {' and '.join(secrets)}"
    else:
        state = (
            f"is set in {' and '.join(secrets)}; each component must see the same, and the same time of day"
        )
    yield Finding(
        "execution-api",
        "warning",
        f"the execution API refused workers {refused} times with 401; [api_auth] jwt_secret {state}",
        "export AIRFLOW__API_AUTH__JWT_SECRET=... with one value for all components; compare their clocks",
        tuple(f"{GITHUB}apache/airflow/issues/{number}" for number in (49871, 51235, 47873)),
        tuple(
            f"{name}: first at {where}" for (kind, name), where in scope.first.items() if kind == "refused"
        ),
    )


@dataclass(frozen=True)
class Relative:
    """A crash after fork on macOS: how its report shows it, and its known workaround."""

    name: str
    sign: str  # a pattern for the crashed thread's "image symbol" lines and the system's notes
    remedy: str
    source: str


# The first that fits: setproctitle's crash may go through the others' code, and theirs not through its.
RELATIVES = (
    Relative(
        "setproctitle", r"(?m)^_setproctitle\.|^\S+ _LS(SetA|A)pplication", f"{COMMAND} status", ISSUES[0]
    ),
    Relative(
        "_scproxy",
        r"(?m)^_scproxy\.|SCDynamicStoreCopyProxies",
        "export NO_PROXY='*'",
        "python/cpython/issues/58037",
    ),
    Relative(
        "Security or DNS",
        r"(?m)^(Security|Network|libnetwork\.dylib) |getaddrinfo",
        f"{PIP} 'apache-airflow>=3.3'",
        "apache/airflow/pull/69008",
    ),
    Relative(
        "Objective-C's initialize",
        r"performForkChildInitialize|objc_initializeAfterForkError|when fork\(\) was called",
        "export OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES",
        "python/cpython/issues/77906",
    ),
    Relative("something unknown", "", "open the report in Console", "python/cpython/issues/77906"),
)


def crash_reports(scope: Scope) -> Iterator[Finding]:
    """macOS crash reports of Python, by what they blame."""
    blamed: dict[Relative, list[str]] = {}
    since = environment.installed_at() or 0
    fresh, broken = False, []
    for path in sorted(scope.crash_reports.glob("*.ips")):
        if "python" not in path.name.lower():
            continue
        scope.progress(f"reading {path}")
        try:
            report = environment.crash_report(path)
        except (OSError, ValueError) as error:
            broken.append(f"{path}: {error}")
            continue
        text = "\n".join(report.frames + report.notes)
        relative = next(relative for relative in RELATIVES if re.search(relative.sign, text))
        blamed.setdefault(relative, []).append(str(path))
        fresh |= relative is RELATIVES[0] and (report.when or 0) >= since
    for relative, paths in blamed.items():
        severity = "warning"
        if relative is RELATIVES[0]:
            severity = "error" if fresh else "note"
        evidence = f"{len(paths)} crash reports of Python blame {relative.name}"
        if relative is RELATIVES[0]:
            evidence += (
                ", the newest since the shim was installed"
                if fresh
                else ", none since the shim was installed"
            )
        source = (GITHUB + relative.source,)
        yield Finding("crash-reports", severity, evidence, relative.remedy, source, tuple(paths))
    if broken:
        evidence = f"{len(broken)} crash reports of Python are malformed or truncated"
        yield Finding("crash-reports", "note", evidence, "open them in Console", details=tuple(broken))


def surroundings(scope: Scope) -> Iterator[Finding]:
    """Settings of this environment that matter after a fork on macOS."""
    if sys.platform != "darwin":
        return
    version = getattr(environment.installed("setproctitle"), "version", "")
    methods = {"this Python's default": multiprocessing.get_start_method()}
    methods.update(environment.airflow_setting("core", "mp_start_method"))
    forking = [where for where, method in methods.items() if method == "fork"]
    if (off := off_on_macos()) and unsafe_on_macos(version):
        evidence = f"setproctitle {version} crashes after fork on macOS, and the shim is off"
        yield Finding("setproctitle", "warning", evidence, off.remedy, (f"{GITHUB}{ISSUES[2]}",))
    if os.environ.get("NO_PROXY", os.environ.get("no_proxy")) != "*":
        evidence = "NO_PROXY is not '*': HTTP requests in forked processes may die in _scproxy"
        yield Finding("NO_PROXY", "note", evidence, RELATIVES[1].remedy, (GITHUB + RELATIVES[1].source,))
    if os.environ.get("OBJC_DISABLE_INITIALIZE_FORK_SAFETY"):
        evidence = (
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY is set: it hides aborts of Objective-C, not setproctitle's"
        )
        yield Finding("OBJC", "note", evidence, "leave it; the shim does not need it")
    if forking:
        evidence = f"multiprocessing starts processes by fork, says {' and '.join(forking)}"
        yield Finding("start-method", "note", evidence, "use spawn where the program lets you")


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
            found += CHECKS[name](scope)
        except Exception as error:  # noqa: BLE001  # the other checks' findings must still be shown
            evidence = f"the check {name} failed: {type(error).__name__}: {error}"
            found.append(Finding(name, "warning", evidence, f"{COMMAND} doctor --list"))
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
