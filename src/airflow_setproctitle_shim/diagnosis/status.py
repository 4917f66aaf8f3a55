"""Is the shim on in this interpreter, why not, what mends that, and whom it protects."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from typing import NamedTuple

from .. import OFF, REPLACEMENT, VARIABLE, __version__, finder, is_active, setting
from . import callers, environment


class Status(NamedTuple):
    """What `status` tells. Strings are "" for what is not there."""

    ok: bool  # nothing is to be done
    on: bool
    says: str  # a sentence or two
    fixes: tuple[str, ...]  # lines to copy, each a thing to do
    protects: tuple[str, ...]  # "name version" of programs
    others: tuple[str, ...]  # sentences about programs that are not protected
    python: str
    executable: str
    platform: str
    shim: str
    installed: str  # when
    variable: str
    setproctitle: str
    processtitle: str
    import_runs: str  # the file that `import setproctitle` runs
    titles: str

    def as_json(self) -> dict[str, object]:
        """Return what `status --json` prints; `fix` is the first of `fixes`."""
        return {**self._asdict(), "fix": self.fixes[0] if self.fixes else ""}


class Skipped(NamedTuple):
    """What keeps Python from running the startup file: "" where nothing known does; and lines that mend it."""

    why: str
    fixes: tuple[str, ...] = ()


def why_skipped() -> Skipped:
    """Return why Python did not run the startup file. Raises what importing a broken importlib_metadata raises."""
    try:
        path, is_read = environment.startup_file()
    except LookupError:
        return Skipped("the shim can be imported, but is not installed", (environment.install(),))
    other = shlex.quote(str(path.with_name("sitecustomize.py")))
    lasting = f"{environment.COMMAND} sitecustomize > {other}"
    if path.with_name("sitecustomize.py").exists():
        package = environment.PACKAGE
        lasting = f"echo 'import {package}; {package}.startup()' >> {other}"
    if sys.flags.no_site:
        return Skipped("Python was started with -S", ("start Python without -S",))
    if not path.exists():
        return Skipped("the startup file is missing", (environment.install(),))
    # python/cpython #113659
    if getattr(path.lstat(), "st_flags", 0) & stat.UF_HIDDEN:
        why = "macOS hides the startup file, and Python skips hidden ones"
        return Skipped(why, (f"chflags -R nohidden {shlex.quote(sys.prefix)}", lasting))
    if not is_read:
        return Skipped("the startup file lies where Python does not look for one", (lasting,))
    return Skipped("")


def status() -> Status:
    """Return what is so here."""
    runs = environment.origin("setproctitle")
    programs, protects = dict[str, str](), list[str]()
    try:
        programs = callers.callers()
        protects = [program for program, what in programs.items() if what == callers.CALLS]
        ok, says, fixes = _verdict(protects, runs)
    except Exception as error:  # noqa: BLE001  # It may be broken in any way.
        says = f"Not known: importlib_metadata is broken ({type(error).__name__}: {error})."
        ok, fixes = False, (environment.install("importlib-metadata"),)
    return Status(
        ok=ok,
        on=is_active(),
        says=says,
        fixes=fixes,
        protects=tuple(protects),
        others=tuple(
            f"{program} {what}" for program, what in programs.items() if program not in protects
        ),
        python=sys.version.split()[0],
        executable=sys.executable,
        platform=sys.platform,
        shim=__version__,
        installed=environment.installed(),
        variable=os.environ.get(VARIABLE, ""),
        setproctitle=environment.version("setproctitle"),
        processtitle=environment.version("processtitle"),
        import_runs=runs,
        titles=_titles(runs),
    )


def _titles(runs: str) -> str:
    """Return what becomes of titles, where `import setproctitle` runs that file."""
    if not runs:
        return "none: no setproctitle here"
    if runs != REPLACEMENT:
        return f"shown by setproctitle {environment.version('setproctitle')}"
    if not finder.shows_titles:
        return "remembered, not shown"
    if shown := environment.version("processtitle"):
        return f"shown in ps by processtitle {shown}"
    return "remembered, not shown: processtitle is missing"


def _verdict(protects: list[str], runs: str) -> tuple[bool, str, tuple[str, ...]]:
    """Return whether nothing is to be done, a sentence or two, and lines to copy that mend it."""
    crash, python = "Workers can crash.", environment.PYTHON
    if is_active() and runs == REPLACEMENT:
        return True, "ON: setproctitle is safe in this Python.", ()
    if is_active():
        first = "ON, but another import hook comes first"
        says = f"{first}: it makes `import setproctitle` run {runs}. {crash}"
        return False, says, (f"{python} -v -c 'import setproctitle' 2>&1 | grep setproctitle",)
    if sys.platform != "darwin":
        whom = f" On a Mac it would protect {', '.join(protects)}." if protects else ""
        return True, f"Not needed here: this is {sys.platform.capitalize()}.{whom}", ()
    if setting() in OFF:
        says = f"OFF: {VARIABLE} is {os.environ[VARIABLE]!r}. {crash}"
        return True, says, (f"unset {VARIABLE}",)
    skipped = why_skipped()
    trace = f"{python} -v -c pass 2>&1 | grep -i -e shim -e pth"
    says = f"OFF: {skipped.why or 'no reason was found'}. {crash}"
    return False, says, skipped.fixes or (trace,)
