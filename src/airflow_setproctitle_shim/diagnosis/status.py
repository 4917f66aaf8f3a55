"""Is the shim on in this interpreter, why not, what mends that, and whom it protects.

Runs when somebody asks: by `status`, by `doctor`, or after Airflow switched the shim on late.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from .. import OFF, REPLACEMENT, VARIABLE, __version__, finder, is_active, setting
from . import callers, environment

CRASH = "Workers can crash."
NOBODY = (
    "No program that is known to use setproctitle is installed here, by metadata and a list of "
    "known programs. Your own code was not looked at. Is this the Python that runs your workers?"
)


class Status(NamedTuple):
    """What `status` tells. Strings are "" for what is not there."""

    ok: bool  # nothing is to be done
    on: bool
    says: str  # a sentence or two
    fixes: tuple[str, ...]  # lines to copy, each a thing to do
    protects: tuple[str, ...]  # programs that die or may die without the shim: name, version, when
    others: tuple[str, ...]  # a sentence about each other program that has to do with setproctitle
    remarks: tuple[str, ...]  # sentences: what was not looked at, what else helps
    programs: tuple[callers.Program, ...]
    python: str  # version
    executable: str
    platform: str
    shim: str  # version
    installed: str  # when
    variable: str
    setproctitle: str  # version
    processtitle: str  # version
    import_runs: str  # the file that `import setproctitle` runs
    titles: str

    def as_json(self) -> dict[str, object]:
        """Return what `status --json` prints; `fix` is the first of `fixes`."""
        programs = [program.as_json() for program in self.programs]
        first = self.fixes[0] if self.fixes else ""
        return {**self._asdict(), "programs": programs, "fix": first}

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what follows the first sentence and its fixes for people: label and text.

        On Linux the first sentence names all that would be protected.
        """
        if self.on or not self.ok:
            dying = [p.says for p in self.programs if p.row.does is callers.Does.DIES]
            if dying:
                yield "protects", ", ".join(dying)
            for says in self.protects:
                if says not in dying:
                    yield "protects", says
            yield "python", f"{self.python}  {self.executable}"
            yield "titles", self.titles
        for sentence in (*self.others, *self.remarks):
            yield "", sentence


class Import(NamedTuple):
    """What `import setproctitle` does here."""

    runs: str  # the file, "" if it is not known or there is none
    by: str  # who answers it, in words; "" if nobody does
    module: ModuleType | None = None  # if it has been imported
    blocked: bool = False  # It raises ImportError whatever is installed.


class Verdict(NamedTuple):
    """Whether nothing is to be done, what is so, and lines that mend it."""

    ok: bool
    says: str
    fixes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Skipped(NamedTuple):
    """What keeps Python from running the startup file, if it is known; lines that mend it."""

    why: str
    fixes: tuple[str, ...] = ()


def status() -> Status:
    """Return what is so here."""
    answer = what_import_does()
    programs: list[callers.Program] = []
    try:
        programs = callers.programs()
        verdict = _of_programs(programs, _of_shim(programs, answer))
    except Exception as error:  # noqa: BLE001  # importlib_metadata may be broken in any way.
        says = f"Not known: importlib_metadata is broken ({type(error).__name__}: {error})."
        verdict = Verdict(False, says, (environment.mend("importlib-metadata", error),))
    protected = [program for program in programs if program.row.does.is_protected]
    return Status(
        ok=verdict.ok,
        on=is_active(),
        says=verdict.says,
        fixes=verdict.fixes,
        protects=tuple(program.says for program in protected),
        others=tuple(
            program.says
            for program in programs
            if program not in protected and program.says not in verdict.says
        ),
        remarks=verdict.remarks,
        programs=tuple(programs),
        python=sys.version.split()[0],
        executable=sys.executable,
        platform=sys.platform,
        shim=__version__,
        installed=environment.installed(),
        variable=os.environ.get(VARIABLE, ""),
        setproctitle=environment.version("setproctitle"),
        processtitle=environment.version("processtitle"),
        import_runs=answer.runs,
        titles=_titles(answer),
    )


def what_import_does() -> Import:
    """Return what `import setproctitle` does here. Imports nothing."""
    if "setproctitle" in sys.modules:
        module = sys.modules["setproctitle"]
        if module is None:
            return Import("", "None in sys.modules", blocked=True)
        spec = getattr(module, "__spec__", None)
        runs = getattr(spec, "origin", None) or getattr(module, "__file__", None) or ""
        return Import(runs, "sys.modules", module)
    for one in list(sys.meta_path):
        name = getattr(one, "__qualname__", type(one).__qualname__)
        hook = f"the import hook {getattr(one, '__module__', '?')}.{name}"
        if not hasattr(one, "find_spec"):  # Python passes over it, too.
            continue
        try:
            spec = one.find_spec("setproctitle", None, None)
        except Exception as error:  # noqa: BLE001  # Others' finders may raise anything.
            return Import("", f"{hook} ({type(error).__name__}: {error})", blocked=True)
        if spec:
            return Import(spec.origin or "", hook)
    return Import("", "")


def why_skipped() -> Skipped:
    """Return why Python did not run the startup file.

    Raises what a broken importlib_metadata raises.
    """
    if sys.flags.no_site:
        return Skipped("Python was started with -S and reads no startup file. Start it without -S")
    try:
        path, is_read = environment.startup_file()
    except LookupError:
        return Skipped("the shim can be imported, but is not installed", (environment.reinstall(),))
    if not is_read:
        why = "the startup file lies where Python does not look for one"
        return Skipped(why, _by_sitecustomize(path.parent, is_on_path=False))
    if not path.exists():
        return Skipped("the startup file is missing", (environment.reinstall(),))
    # python/cpython #113659
    if getattr(path.lstat(), "st_flags", 0) & stat.UF_HIDDEN:
        why = (
            "macOS hides the startup file, and Python skips hidden ones. "
            "It may hide it again; what lasts is a sitecustomize.py, by the last line"
        )
        unhide = f"chflags -R nohidden {shlex.quote(_environment_of(path))}"
        return Skipped(why, (unhide, *_by_sitecustomize(path.parent, is_on_path=True)))
    text = path.read_text("utf-8", "replace").strip()
    if text != environment.STARTUP_LINE:
        why = "was edited" if text else "is empty"
        return Skipped(f"the startup file {why}", (environment.reinstall(),))
    return Skipped("")


def _environment_of(path: Path) -> str:
    """Return the environment that a file is in, or the file if it is in none."""
    prefix = Path(sys.prefix)
    return str(prefix if sys.prefix != sys.base_prefix and prefix in path.parents else path)


def _by_sitecustomize(directory: Path, is_on_path: bool) -> tuple[str, ...]:
    """Return lines that switch the shim on by a sitecustomize.py, next to it if possible.

    `is_on_path`: whether the directory is on sys.path in every interpreter.
    """
    package, command = environment.PACKAGE, f"{environment.COMMAND} sitecustomize"
    other = environment.origin("sitecustomize")
    file = directory / "sitecustomize.py"
    if other and Path(other).parent.resolve() == directory.resolve():
        # A line break first, as the last line may have none.
        line = f"\\nimport {package}; {package}.startup()\\n"
        return (f"printf '{line}' >> {shlex.quote(other)}",)
    paths = [] if is_on_path or _is_on_pythonpath(directory) else [str(directory)]
    lines = [f"{command} > {shlex.quote(str(file))}"]
    # Only the first one on the path is imported. Debian's and Homebrew's Pythons have one of their
    # own, which only PYTHONPATH comes before; ours runs the one that it hides.
    if not directory.is_dir() or (is_on_path and other):
        home = Path.home() / ".airflow-setproctitle-shim"
        file = home / "sitecustomize.py"
        make = f"mkdir -p {shlex.quote(str(home))}"
        lines = [f"{make} && {command} > {shlex.quote(str(file))}"]
        paths.insert(0, str(home))
    if paths:
        joined = shlex.quote(os.pathsep.join(paths))
        lines.append(f'export PYTHONPATH={joined}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    return tuple(lines)


def _is_on_pythonpath(directory: Path) -> bool:
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return any(Path(place).resolve() == directory.resolve() for place in places if place)


def _is_served(answer: Import) -> bool:
    """Return whether an import gives the replacement, or a native module that was made harmless."""
    if answer.runs == REPLACEMENT:
        return True
    if not is_active() or not answer.module:
        return False
    from ..neutralise import Neutralised  # Late: it imports wrapt, which may be broken or missing.

    return isinstance(vars(answer.module).get("setproctitle"), Neutralised)


def _titles(answer: Import) -> str:
    """Return what becomes of titles."""
    if answer.blocked or not answer.by:
        return "none: no setproctitle can be imported here"
    if not answer.runs:
        return f"not known: {answer.by} gives a module that has no file"
    if not _is_served(answer):
        return f"shown by setproctitle {environment.version('setproctitle')}".rstrip()
    if not finder.shows_titles:
        return "remembered, not shown"
    if why := _why_no_titles():
        return f"remembered, not shown: {why}"
    return f"shown in ps by processtitle {environment.version('processtitle')}"


def _why_no_titles() -> str:
    """Return what keeps processtitle from showing titles, "" if nothing known does."""
    if sys.version_info < (3, 10):
        return "processtitle needs Python 3.10"
    if not environment.origin("processtitle"):
        return "processtitle is missing"
    return ""


def _of_shim(programs: list[callers.Program], answer: Import) -> Verdict:
    """Return whether the shim is on, or is not needed, and what mends it if it should be."""
    protects = [program.says for program in programs if program.row.does.is_protected]
    if is_active():
        return _of_active(answer)
    if sys.platform != "darwin":
        whom = f" On a Mac it would protect {', '.join(protects)}." if protects else ""
        return Verdict(True, f"Not needed here: this is {sys.platform.capitalize()}.{whom}")
    if setting() in OFF:
        says = f"OFF: {VARIABLE} is {os.environ[VARIABLE]!r}. {CRASH}"
        return Verdict(True, says, (f"unset {VARIABLE}",))
    if finder.started:
        return _of_started(answer)
    skipped = why_skipped()
    if skipped.why:
        return Verdict(False, f"OFF: {skipped.why}. {CRASH}", skipped.fixes)
    remark = "`python -v -c pass`, with this Python, prints what becomes of its startup files."
    return Verdict(False, f"OFF: no reason was found. {CRASH}", remarks=(remark,))


def _of_active(answer: Import) -> Verdict:
    """Return the verdict where the shim is on."""
    on = "ON: setproctitle is safe in this Python."
    if answer.blocked:
        return Verdict(True, f"{on} It cannot be imported at all: {answer.by} blocks it.")
    if not _is_served(answer):
        runs = answer.runs or "a module that has no file"
        says = f"ON, but {answer.by} comes first: `import setproctitle` gives {runs}"
        return Verdict(False, f"{says}. {CRASH}")
    if finder.shows_titles and (why := _why_no_titles()):
        fix = environment.install("processtitle>=1.3")
        if sys.version_info < (3, 10):
            fix = f"unset {VARIABLE}"
        return Verdict(False, f"{on} But no titles are shown: {why}.", (fix,))
    if answer.runs != REPLACEMENT:
        on += f" {answer.runs} was imported before the shim, and is harmless now."
    return Verdict(True, on)


def _of_started(answer: Import) -> Verdict:
    """Return the verdict where the shim was started, and is not on."""
    if answer.module:
        try:
            from .. import neutralise  # noqa: F401  # Late: whether it can be is the question.
        except Exception as error:  # noqa: BLE001  # as it may be broken in any way
            says = f"OFF: {answer.runs} was imported before the shim, and wrapt, which makes it"
            what = f"harmless, is broken ({type(error).__name__}: {error})"
            return Verdict(False, f"{says} {what}. {CRASH}", (environment.mend("wrapt", error),))
    why = "it was on, and something in this environment has taken it off sys.meta_path"
    return Verdict(False, f"OFF: {why}. {CRASH}")


def _of_programs(programs: list[callers.Program], verdict: Verdict) -> Verdict:
    """Return the verdict, with what programs add to it."""
    remarks = list(verdict.remarks)
    if not programs:
        remarks.append(NOBODY)
    optional = [f"{one.row.name} {one.version}" for one in programs if one.row.optional]
    if optional and not environment.version("setproctitle"):
        names = ", ".join(optional)
        remarks.append(f"setproctitle is not installed here, and used only once it is: {names}.")
    for program in programs:
        if program.row.does is callers.Does.FAILS and sys.platform == "darwin":
            fix = environment.install(program.row.mends)
            says, fixes = f"{verdict.says} {program.says}.", (*verdict.fixes, fix)
            verdict = Verdict(False, says, fixes)
            remarks.append(program.row.or_else)
    return verdict._replace(remarks=tuple(remarks))
