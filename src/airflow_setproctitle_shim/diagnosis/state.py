"""Is the shim on in this interpreter, and if not, why not. Never imported at interpreter start."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import site
import stat
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from importlib_metadata import Distribution

from .. import OFF, REPLACEMENT, VARIABLE, is_active, setting
from .finding import Answer, Finding

PACKAGE = "airflow_setproctitle_shim"
SOURCE = ("python/cpython/issues/113659",)
DISTRIBUTION = "airflow-setproctitle-shim"
UNSAFE = [1, 3]  # From this version on setproctitle crashes after fork on macOS (py-setproctitle #113).
CALL = re.compile(rb"(?m)^import .*airflow_setproctitle_shim.*startup\(\)")
PYTHON = shlex.quote(sys.executable or "python")
COMMAND = f"{PYTHON} -m {PACKAGE}"


def version(name: str) -> str:
    """Return an installed distribution's version, "" if there is none."""
    with contextlib.suppress(Exception):
        return str(Distribution.from_name(name).version or "")
    return ""


def install(requirement: str = DISTRIBUTION, how: str = "--force-reinstall --no-deps") -> str:
    """Return the command that installs into this environment, which may have been made by uv and have no pip."""
    program = f"{PYTHON} -m pip install" if origin("pip") else f"uv pip install --python {PYTHON}"
    return f"{program} {how} {requirement}"


def is_read(directory: Path) -> bool:
    """Return whether site processes a directory's startup files in this interpreter."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return directory.resolve() in [Path(place).resolve() for place in [*site.getsitepackages(), *user]]


def startup_file() -> tuple[Path | None, list[Finding]]:
    """Return the startup file's path, None without metadata, and what keeps site from running it."""
    try:
        path = Path(str(Distribution.from_name(DISTRIBUTION).locate_file(f"{PACKAGE}.pth")))
    except Exception:  # noqa: BLE001  # Metadata may be in any state.
        return None, [Finding("error", f"{DISTRIBUTION} is importable but not installed", install())]
    other = path.with_name("sitecustomize.py")
    lasting = f"{COMMAND} sitecustomize > {shlex.quote(str(other))}"
    if other.exists():
        lasting = f"add to {other}: import {PACKAGE}; {PACKAGE}.startup()"
    unhide = f"chflags -R nohidden {shlex.quote(sys.prefix)}"
    if PathFinder.find_spec("sitecustomize") is None:  # Another one would come before it.
        unhide += f"  # or, for good: {lasting}"
    upgrade = install(how="--upgrade")  # to a release that does without import lines (PEP 829)
    there = path.exists()
    hidden = there and getattr(path.lstat(), "st_flags", 0) & stat.UF_HIDDEN  # python/cpython #113659
    flaws = {  # whether it is so, and what mends it
        "is skipped, as Python was started with -S": (sys.flags.no_site, "start Python without -S"),
        "has import lines, which this Python ignores": (sys.version_info >= (3, 18), upgrade),
        "is missing": (not there, install()),
        "is hidden by macOS, and Python skips hidden startup files": (hidden, unhide),
        "lies where site does not look for startup files": (not is_read(path.parent), lasting),
        "does not switch the shim on": (there and not CALL.search(path.read_bytes()), install()),
    }
    source = SOURCE * bool(hidden)
    return path, [
        Finding("error", f"{path} {said}", mend, source) for said, (so, mend) in flaws.items() if so
    ]


def startup() -> Answer:
    """Return why the shim is on or off in this interpreter, and what is wrong with that, if anything."""
    if is_active():
        if (runs := origin("setproctitle")) == REPLACEMENT:
            return Answer("on: `import setproctitle` gets the shim's safe module")
        evidence = f"`import setproctitle` runs {runs}, found by a finder before the shim's"
        remedy = f"{PYTHON} -v -c 'import setproctitle' 2>&1 | grep setproctitle"
        return Answer("on: but not asked first", [Finding("error", evidence, remedy)])
    if sys.platform != "darwin":
        return Answer(f"off: this is {sys.platform}, and setproctitle is dangerous on macOS only")
    if setting() in OFF:
        evidence = f"the shim is off, because {VARIABLE} is {os.environ[VARIABLE]!r}"
        wrong = Finding("note", evidence, f"unset {VARIABLE}")
    else:
        evidence = "the shim is off though its startup file is in order: something switched it off again"
        unknown = Finding("error", evidence, f"{PYTHON} -v -c pass 2>&1 | grep -i -e shim -e pth")
        wrong = [*startup_file()[1], unknown][0]
    return Answer(f"off: {wrong.evidence}", [wrong])


def installed_at() -> float:
    """Return when the shim was installed, in seconds since the epoch: the time of its RECORD, or else its own."""
    path, _ = startup_file()
    records = path.parent.glob(f"{PACKAGE}-*.dist-info/RECORD") if path else []
    return max((path.stat().st_mtime for path in records), default=os.stat(__file__).st_mtime)


def numbers(version: str) -> list[int]:
    """Return the numbers of a version, by which versions can be compared."""
    return [int(number) for number in re.findall(r"\d+", version)[:4]]


def facts() -> dict[str, str]:
    """Return what concerns the shim in this interpreter, in words."""
    path, flaws = startup_file()
    native, shown = version("setproctitle"), version("processtitle")
    danger = "crashes after fork on macOS" if numbers(native) >= UNSAFE else "safe on macOS"
    titles = f"remembered, not shown; {VARIABLE}=titles shows them"
    if setting() == "titles":
        titles = f"shown in ps by processtitle {shown}" if shown else "not shown: no processtitle installed"
    return {
        "variable": f"{VARIABLE} is {os.environ.get(VARIABLE, 'not set')}",
        "python": f"{sys.version.split()[0]} on {sys.platform}  {sys.executable}",
        "startup file": "; ".join(flaw.evidence for flaw in flaws) or f"{path} is in order",
        "setproctitle": f"{native} ({danger})" if native else "not installed",
        "titles": titles,
        "import runs": origin("setproctitle") or "nothing: setproctitle cannot be imported",
    }


def origin(module: str) -> str | None:
    """Return the file that importing a module runs in this interpreter, or None. Others' finders may raise anything."""
    with contextlib.suppress(Exception):
        return getattr(importlib.util.find_spec(module), "origin", None)
    return None
