"""Is the shim on in this interpreter, why not, what mends that, and whom it protects."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from .. import OFF, REPLACEMENT, VARIABLE, __version__, finder, is_active, setting
from . import facts

CALL = re.compile(rb"(?m)^import .*airflow_setproctitle_shim.*startup\(\)")
SYSTEMS = {"linux": "Linux", "win32": "Windows"}


def why_skipped() -> tuple[str, str]:
    """Return what keeps Python from running the startup file, and what mends that; ("", "") if nothing known does.

    What mends it is a line to copy, and maybe a second line about it.
    Raises what importing a broken importlib_metadata raises.
    """
    path = facts.startup_file()
    if path is None:
        return "the shim can be imported, but is not installed", facts.install()
    other, beside = PathFinder.find_spec("sitecustomize"), path.with_name("sitecustomize.py")
    if other and other.origin and facts.PACKAGE.encode() in Path(other.origin).read_bytes():
        return "", ""  # It does what the startup file does.
    lasting = f"{facts.COMMAND} sitecustomize > {shlex.quote(str(beside))}"
    if beside.exists():
        lasting = f"echo 'import {facts.PACKAGE}; {facts.PACKAGE}.startup()' >> {shlex.quote(str(beside))}"
    unhide = f"chflags -R nohidden {shlex.quote(sys.prefix)}"
    if other is None:  # Another one would come before it.
        unhide += f"\nmacOS may hide it again. What lasts: {lasting}"
    there = path.exists()
    hidden = there and getattr(path.lstat(), "st_flags", 0) & stat.UF_HIDDEN  # python/cpython #113659
    ignored = sys.version_info >= (3, 18)  # PEP 829
    silent = there and not CALL.search(path.read_bytes())
    for so, why, fix in (
        (sys.flags.no_site, "Python was started with -S", "start Python without -S"),
        (ignored, "this Python ignores the startup file", facts.install(how="--upgrade")),
        (not there, "the startup file is missing", facts.install()),
        (hidden, "macOS hides the startup file, and Python skips hidden ones", unhide),
        (not facts.is_read(path.parent), "the startup file lies where Python does not look for one", lasting),
        (silent, "the startup file does not switch the shim on", facts.install()),
    ):
        if so:
            return why, fix
    return "", ""


def status() -> dict[str, Any]:
    """Return what `status --json` prints; strings are "" for what is not there.

    `ok`: nothing is to be done; `fix`: a line to copy, and maybe a second line about it; `protects`: name and
    version of the programs that the shim protects on macOS; `others`: what is to be said of other programs.
    """
    runs, shown = facts.origin("setproctitle"), facts.version("processtitle")
    titles = (
        f"shown by setproctitle {facts.version('setproctitle')}" if runs else "none: no setproctitle here"
    )
    if runs == REPLACEMENT:
        in_ps = (
            f"shown in ps by processtitle {shown}" if shown else "not shown: processtitle is not installed"
        )
        titles = in_ps if finder.shows_titles else "remembered, not shown"
    protects, others = list[str](), list[str]()
    try:
        from . import callers

        for program, row in callers.installed().items():
            protects += [program] if row.what == callers.CALLS else []
            others += [f"{program} {row}"] if row.what != callers.CALLS else []
        ok, says, fix = _verdict(protects, runs)
    except Exception as error:  # noqa: BLE001  # It may be broken in any way.
        says = f"Not known: importlib_metadata is broken ({type(error).__name__}: {error})."
        ok, fix = False, facts.install("importlib-metadata")
    return {
        "ok": ok,
        "on": is_active(),
        "says": says,
        "fix": fix,
        "protects": protects,
        "others": others,
        "titles": titles,
        "python": sys.version.split()[0],
        "executable": sys.executable or "",
        "platform": sys.platform,
        "shim": __version__,
        "installed": facts.installed_at(),
        "variable": os.environ.get(VARIABLE, ""),
        "setproctitle": facts.version("setproctitle"),
        "processtitle": shown,
        "import_runs": runs,
    }


def _verdict(protects: list[str], runs: str) -> tuple[bool, str, str]:
    crash = "Workers can crash."
    if is_active() and runs == REPLACEMENT:
        return True, "ON: setproctitle is safe in this Python.", ""
    if is_active():
        says = f"ON, but another import hook comes first: `import setproctitle` runs {runs}. {crash}"
        return False, says, f"{facts.PYTHON} -v -c 'import setproctitle' 2>&1 | grep setproctitle"
    if sys.platform != "darwin":
        says = f"Not needed here: this is {SYSTEMS.get(sys.platform, sys.platform)}."
        return True, f"{says} On a Mac it would protect {', '.join(protects)}." if protects else says, ""
    if setting() in OFF:
        return True, f"OFF: {VARIABLE} is {os.environ[VARIABLE]!r}. {crash}", f"unset {VARIABLE}"
    why, fix = why_skipped()
    why = why or "the startup file is in order, but something switched the shim off"
    return False, f"OFF: {why}. {crash}", fix or f"{facts.PYTHON} -v -c pass 2>&1 | grep -i -e shim -e pth"
