"""Is the shim on in this interpreter, why not, what mends that, and whom it protects."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from typing import Any

from .. import OFF, REPLACEMENT, VARIABLE, __version__, finder, is_active, setting
from . import packages as pkg


def why_skipped() -> tuple[str, str]:
    """Return what keeps Python from running the startup file, and what mends that: a line to copy, and maybe a second
    line about it; ("", "") if nothing known does. Raises what importing a broken importlib_metadata raises."""
    try:
        path, is_read = pkg.startup_file()
    except LookupError:
        return "the shim can be imported, but is not installed", pkg.install()
    other = path.with_name("sitecustomize.py")
    lasting = f"{pkg.COMMAND} sitecustomize > {shlex.quote(str(other))}"
    if other.exists():
        lasting = (
            f"echo 'import {pkg.PACKAGE}; {pkg.PACKAGE}.startup()' >> {shlex.quote(str(other))}"
        )
    unhide = f"chflags -R nohidden {shlex.quote(sys.prefix)}\nmacOS may hide it again. What lasts: {lasting}"
    there = path.exists()
    hidden = (
        there and getattr(path.lstat(), "st_flags", 0) & stat.UF_HIDDEN
    )  # python/cpython #113659
    reasons = (
        (sys.flags.no_site, "Python was started with -S", "start Python without -S"),
        (not there, "the startup file is missing", pkg.install()),
        (hidden, "macOS hides the startup file, and Python skips hidden ones", unhide),
        (not is_read, "the startup file lies where Python does not look for one", lasting),
    )
    return next(((why, fix) for so, why, fix in reasons if so), ("", ""))


def status() -> dict[str, Any]:
    """Return what `status --json` prints. Strings are "" for what is not there."""
    runs, shown = pkg.origin("setproctitle"), pkg.version("processtitle")
    titles = (
        f"shown by setproctitle {pkg.version('setproctitle')}"
        if runs
        else "none: no setproctitle here"
    )
    if runs == REPLACEMENT:
        titles = "remembered, not shown"
        if finder.shows_titles:
            titles = (
                f"shown in ps by processtitle {shown}"
                if shown
                else f"{titles}: processtitle is missing"
            )
    programs, protects = dict[str, str](), list[str]()
    try:
        programs = pkg.callers()
        protects = [program for program, what in programs.items() if what == pkg.CALLS]
        ok, says, fix = _verdict(protects, runs)
    except Exception as error:  # noqa: BLE001  # It may be broken in any way.
        says = f"Not known: importlib_metadata is broken ({type(error).__name__}: {error})."
        ok, fix = False, pkg.install("importlib-metadata")
    others = [f"{program} {what}" for program, what in programs.items() if program not in protects]
    facts = {
        "python": sys.version.split()[0], "executable": sys.executable, "platform": sys.platform,
        "shim": __version__, "installed": pkg.installed(), "variable": os.environ.get(VARIABLE, ""),
        "setproctitle": pkg.version("setproctitle"), "processtitle": shown, "import_runs": runs, "titles": titles,
    }  # fmt: skip
    here = {
        "ok": ok,
        "on": is_active(),
        "says": says,
        "fix": fix,
        "protects": protects,
        "others": others,
    }
    return {**here, **facts}


def _verdict(protects: list[str], runs: str) -> tuple[bool, str, str]:
    """Return whether nothing is to be done, a sentence or two, and what mends it, a line to copy."""
    crash = "Workers can crash."
    if is_active() and runs == REPLACEMENT:
        return True, "ON: setproctitle is safe in this Python.", ""
    if is_active():
        says = f"ON, but another import hook comes first: it makes `import setproctitle` run {runs}. {crash}"
        return False, says, f"{pkg.PYTHON} -v -c 'import setproctitle' 2>&1 | grep setproctitle"
    if sys.platform != "darwin":
        whom = f" On a Mac it would protect {', '.join(protects)}." if protects else ""
        return True, f"Not needed here: this is {sys.platform.capitalize()}.{whom}", ""
    if setting() in OFF:
        return True, f"OFF: {VARIABLE} is {os.environ[VARIABLE]!r}. {crash}", f"unset {VARIABLE}"
    why, fix = why_skipped()
    trace = f"{pkg.PYTHON} -v -c pass 2>&1 | grep -i -e shim -e pth"
    return False, f"OFF: {why or 'no reason was found'}. {crash}", fix or trace
