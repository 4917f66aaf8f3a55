"""Is the shim on in this interpreter, and if not, why not. Asked by `status`, by `doctor`, and by airflow.py once
something is wrong; never at interpreter start. Prints nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import site
import stat
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from .. import OFF, REPLACEMENT, VARIABLE, finder, is_active, setting
from . import metadata
from .finding import Answer, Finding

PACKAGE = __name__.partition(".")[0]
DISTRIBUTION = "airflow-setproctitle-shim"
STARTUP_FILE = f"{PACKAGE}.pth"
FORK_SAFETY = "OBJC_DISABLE_INITIALIZE_FORK_SAFETY"
PYTHON = shlex.quote(sys.executable or "python")
COMMAND = f"{PYTHON} -m {PACKAGE}"


def install(arguments: str) -> str:
    """Return the command that installs into this environment, which may have been made by uv and have no pip."""
    return f"{f'{PYTHON} -m pip install' if spec('pip') else f'uv pip install --python {PYTHON}'} {arguments}"


def reinstall(requirement: str = DISTRIBUTION) -> str:
    """Return the command that puts a distribution's files back, and changes no other distribution."""
    return install(f"--force-reinstall --no-deps {requirement}")


def sitecustomize(directory: Path) -> str:
    """Return what switches the shim on by a sitecustomize.py in the directory."""
    path = directory / "sitecustomize.py"
    if path.exists():
        return f"add to {path}: import {PACKAGE}; {PACKAGE}.startup()"
    return f"{COMMAND} sitecustomize > {shlex.quote(str(path))}"


def unhide(path: Path) -> str:
    """Return what makes the file visible, and what lasts: a sitecustomize.py is imported though it is hidden."""
    first = PathFinder.find_spec("sitecustomize") is None  # Another one would come before it.
    return (
        f"chflags -R nohidden {shlex.quote(sys.prefix)}"
        + first * f"  # or, for good: {sitecustomize(path.parent)}"
    )


def is_hidden(path: Path) -> bool:
    """Return whether a file has macOS's UF_HIDDEN flag (python/cpython #113659)."""
    return bool(getattr(path.lstat(), "st_flags", 0) & stat.UF_HIDDEN)


def site_directories() -> list[Path]:
    """Return the directories whose startup files site processes in this interpreter."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [Path(directory).resolve() for directory in [*site.getsitepackages(), *user]]


# What keeps site from running a startup file: the predicate, a word, a sentence of the path, the remedy.
FLAWS: Any = (
    (lambda path, _: sys.flags.no_site,
     "skipped by -S", "Python was started with -S, which skips {}", lambda _: "start Python without -S"),
    (lambda path, _: sys.version_info >= (3, 18),  # PEP 829
     "not read by this Python", "this Python ignores import lines, as in {}",
     lambda _: install(f"--upgrade {DISTRIBUTION}")),
    (lambda path, _: not path.exists(), "missing", "{} is missing", lambda _: reinstall()),
    (lambda path, _: path.exists() and is_hidden(path),
     "hidden", "{} is hidden by macOS, and Python skips hidden startup files", unhide),
    (lambda path, _: path.parent.resolve() not in site_directories(),
     "not where site looks", "{} lies where site does not look for startup files",
     lambda path: sitecustomize(path.parent)),
    (lambda path, digest: path.exists() and digest and not metadata.is_intact(path, digest),
     "not as installed", "{} is not the file that was installed", lambda _: reinstall()),
    (lambda path, digest: digest is None,
     "not in RECORD", "{} is not in RECORD, so nobody can tell whether it is the file installed",
     lambda _: reinstall()),
)  # fmt: skip


def startup_file() -> tuple[Path | None, list[Any]]:
    """Return the startup file's path, None without metadata, and the rows of FLAWS that are true of it."""
    if (dist := metadata.installed(DISTRIBUTION)) is None:
        return None, []
    path, digest = Path(str(dist.locate_file(STARTUP_FILE))), metadata.recorded(dist).get(STARTUP_FILE)
    return path, [flaw for flaw in FLAWS if flaw[0](path, digest)]


def startup_file_skipped() -> Finding | None:
    """Return why site did not run the startup file, or None if it should have."""
    path, flaws = startup_file()
    if path is None:
        return Finding("error", f"{DISTRIBUTION} is importable but not installed", reinstall())
    for _, _, sentence, remedy in flaws:
        return Finding("error", sentence.format(path), remedy(path), ("python/cpython/issues/113659",))
    return None


def state() -> tuple[str, Finding | None]:
    """Return why the shim is on or off in this interpreter, and what is wrong with that, if anything."""
    if is_active():
        if (origin := origin_of_setproctitle()) == REPLACEMENT:
            return "`import setproctitle` gets the shim's safe module", None
        evidence = f"`import setproctitle` runs {origin}, found by a finder before the shim's"
        remedy = f"{PYTHON} -v -c 'import setproctitle' 2>&1 | grep setproctitle"
        return "but not asked first", Finding("error", evidence, remedy)
    if sys.platform != "darwin":
        return f"this is {sys.platform}, and setproctitle is dangerous on macOS only", None
    if setting() in OFF:
        evidence = f"the shim is off, because {VARIABLE} is {os.environ[VARIABLE]!r}"
        return evidence, Finding("note", evidence, f"unset {VARIABLE}")
    evidence = "the shim is off though its startup file is in order: something switched it off again"
    wrong = startup_file_skipped() or Finding(
        "error", evidence, f"{PYTHON} -v -c pass 2>&1 | grep -i -e shim -e pth"
    )
    return wrong.evidence, wrong


def startup() -> Answer:
    """Return what is wrong with the shim in this interpreter, and what else matters after a fork on macOS."""
    why, wrong = state()
    answer = Answer(f"{'on' if is_active() else 'off'}: {why}", [wrong] if wrong else [])
    if sys.platform == "darwin" and os.environ.get("NO_PROXY", os.environ.get("no_proxy")) != "*":
        evidence = "NO_PROXY is not '*': HTTP requests of forked processes may die in _scproxy"
        answer.findings.append(
            Finding("note", evidence, "export NO_PROXY='*'", ("python/cpython/issues/58037",))
        )
    if sys.platform == "darwin" and os.environ.get(FORK_SAFETY):
        evidence = f"{FORK_SAFETY} hides aborts of Objective-C, not setproctitle's crash"
        answer.findings.append(Finding("note", evidence, "leave it; the shim does not need it"))
    return answer


def installed_at() -> float:
    """Return when the shim was installed, in seconds since the epoch: the time of its RECORD, or else its own."""
    dist = metadata.installed(DISTRIBUTION)
    records = Path(str(dist.locate_file(""))).glob(f"{PACKAGE}-*.dist-info/RECORD") if dist else []
    return max((path.stat().st_mtime for path in records), default=os.stat(__file__).st_mtime)


def unsafe_on_macos(version: str) -> bool:
    """Return whether this setproctitle crashes after fork on macOS: 1.3.0 and later (py-setproctitle #113)."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]] >= [1, 3]


def facts() -> dict[str, str]:
    """Return what concerns the shim in this interpreter, in words."""
    before = [name(it) for it in sys.meta_path[: sys.meta_path.index(finder)]] if is_active() else []  # type: ignore[arg-type]  # A ModuleSpec is an object.
    path, flaws = startup_file()
    version, shown = metadata.version("setproctitle"), metadata.version("processtitle")
    by = f"shown in ps by processtitle {shown}" if shown else "not shown, as processtitle is not installed"
    native = (
        f"{version} ({'crashes after fork' if unsafe_on_macos(version) else 'safe'} on macOS)"
        if version
        else "not installed"
    )
    state = ", ".join(flaw[1] for flaw in flaws) or "in order"
    return {
        "platform": sys.platform,
        "variable": f"{VARIABLE} is {os.environ.get(VARIABLE, 'not set')}",
        "python": f"{sys.version.split()[0]}  {sys.executable}",
        "startup file": f"{path}: {state}" if path else "not installed",
        "finder": f"before it: {', '.join(before) or 'none'}" if is_active() else "not on sys.meta_path",
        "setproctitle": native,
        "titles": by if setting() == "titles" else f"remembered, not shown; {VARIABLE}=titles shows them",
        "import runs": origin_of_setproctitle() or "nothing: setproctitle cannot be imported",
    }


def name(finder: Any) -> str:
    """Return a finder's name with its module's."""
    named = finder if hasattr(finder, "__name__") else type(finder)
    return f"{getattr(named, '__module__', '')}.{named.__name__}".lstrip(".")


def origin_of_setproctitle() -> str | None:
    """Return the file that `import setproctitle` runs in this interpreter, or None if there is none."""
    return getattr(spec("setproctitle"), "origin", None)


def spec(module: str) -> Any:
    """Return a module's spec, or None: somebody else's finder may raise anything."""
    try:
        return importlib.util.find_spec(module)
    except Exception:  # noqa: BLE001
        return None
