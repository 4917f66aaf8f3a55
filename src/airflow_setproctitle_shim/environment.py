"""Facts about this environment, gathered and not judged. Imported by the command line and by
airflow.py once something is wrong; never at interpreter start. Prints nothing."""

from __future__ import annotations

import ast
import base64
import configparser
import contextlib
import datetime
import functools
import hashlib
import importlib.util
import json
import os
import re
import site
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from importlib_metadata import Distribution, PackageNotFoundError, PackagePath, distributions

from . import VARIABLE

DISTRIBUTION = "airflow-setproctitle-shim"
READABLE = 64 * 2**20  # bytes; no source file or crash report is larger


@dataclass(frozen=True)
class StartupFile:
    """A startup file of this distribution, as found."""

    path: Path
    exists: bool
    hidden: bool
    owned: bool  # named in the distribution's RECORD
    intact: bool  # has the hash that RECORD gives
    in_site_directory: bool
    used: bool  # this Python reads this kind: .start from 3.15 on, .pth before (PEP 829)


def installed(name: str) -> Distribution | None:
    """Return the installed distribution of that name, or None."""
    try:
        found: Distribution = Distribution.from_name(name)
        return found
    except PackageNotFoundError:
        return None


def startup_files() -> list[StartupFile]:
    """Return what is known of both startup files; [] when the distribution has no metadata."""
    dist = installed(DISTRIBUTION)
    if dist is None:
        return []
    recorded = {str(file): file for file in dist.files or []}
    wanted = ".start" if sys.version_info >= (3, 15) else ".pth"
    found = []
    for suffix in (".pth", ".start"):
        name = f"airflow_setproctitle_shim{suffix}"
        path = Path(str(dist.locate_file(name)))
        try:
            info: os.stat_result | None = path.lstat()
        except OSError:
            info = None
        found.append(
            StartupFile(
                path=path,
                exists=info is not None,
                hidden=info is not None and is_hidden(info),
                owned=name in recorded,
                intact=name in recorded and is_intact(recorded[name]),
                in_site_directory=path.parent.resolve() in site_directories(),
                used=suffix == wanted,
            )
        )
    return found


def is_hidden(info: os.stat_result) -> bool:
    """Return whether a file with this lstat() result has macOS's UF_HIDDEN flag (python/cpython #113659)."""
    return bool(getattr(info, "st_flags", 0) & stat.UF_HIDDEN)


def is_intact(file: PackagePath) -> bool:
    """Return whether the file has the hash that RECORD gives for it; RECORD may give none."""
    if file.hash is None:
        return True
    try:
        digest = hashlib.new(file.hash.mode, read(Path(str(file.locate())))).digest()
    except (OSError, ValueError):
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def site_directories() -> list[Path]:
    """Return the directories whose startup files site processes in this interpreter."""
    if sys.flags.no_site:
        return []
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [Path(directory).resolve() for directory in [*site.getsitepackages(), *user]]


def read(path: Path) -> bytes:
    """Return a regular file's content. Raises OSError for anything else, so that no FIFO blocks us."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > READABLE:
        raise OSError(f"{path} is no regular file of a size that can be read")
    return path.read_bytes()


def facts() -> dict[str, Any]:
    """Return what concerns the shim in this interpreter, as `status --json` prints it."""
    dist = installed("setproctitle")
    return {
        "platform": sys.platform,
        "variable": {"name": VARIABLE, "value": os.environ.get(VARIABLE)},
        "python": {"version": sys.version.split()[0], "executable": sys.executable},
        "startup_files": [asdict(file) for file in startup_files()],
        "finders": [_name(finder) for finder in sys.meta_path],
        "setproctitle": {"version": dist.version if dist else None, "origin": origin_of_setproctitle()},
    }


def _name(finder: object) -> str:
    """Return a finder's name with its module's; a module that is a finder, as ours is, has its own."""
    named: Any = finder if hasattr(finder, "__name__") else type(finder)
    return f"{getattr(named, '__module__', '')}.{named.__name__}".lstrip(".")


def origin_of_setproctitle() -> str | None:
    """Return the file that `import setproctitle` runs in this interpreter, or None if there is none."""
    try:
        spec = importlib.util.find_spec("setproctitle")
    except Exception:  # noqa: BLE001  # somebody else's finder may raise anything
        return None
    return spec.origin if spec else None


def installed_at() -> float | None:
    """Return when the shim was installed here: the time its RECORD, or else METADATA, was written."""
    dist = installed(DISTRIBUTION)
    files = {file.name: Path(str(file.locate())) for file in (dist.files if dist else None) or []}
    path = files.get("RECORD") or files.get("METADATA")
    return path.stat().st_mtime if path and path.exists() else None


@dataclass
class Package:
    """An installed distribution: the part of its metadata that can be read."""

    name: str
    version: str
    requires: list[str]
    distribution: Any

    @functools.cached_property
    def files(self) -> list[Any]:
        """Its files, as PackagePath; [] if RECORD cannot be read. Late, as finding them takes long."""
        with contextlib.suppress(Exception):
            return list(self.distribution.files or [])
        return []


@functools.lru_cache(maxsize=1)
def packages() -> list[Package]:
    """Return the installed distributions, without those whose metadata cannot be read."""
    found: dict[str, Package] = {}
    for dist in distributions():
        # Other people's metadata may raise anything.
        with contextlib.suppress(Exception):
            package = Package(dist.name, dist.version, list(dist.requires or []), dist)
            # The first one found on sys.path is the one that is imported.
            found.setdefault(re.sub(r"[-_.]+", "-", package.name).lower(), package)
    return [found[name] for name in sorted(found)]


def edited_files(package: Package) -> list[Path]:
    """Return the distribution's Python files that no longer have the hash in its RECORD."""
    edited = [file for file in package.files if file.suffix == ".py" and not is_intact(file)]
    return [path for file in edited if (path := Path(str(file.locate()))).is_file()]


def requirers(name: str) -> list[Package]:
    """Return the installed distributions that require the one named, extras left out."""
    pattern = re.compile(rf"{re.escape(name)}\s*(?![\w.-])(?!.*\bextra\s*==)", re.IGNORECASE)
    return [package for package in packages() if any(map(pattern.match, package.requires))]


@dataclass(frozen=True)
class Import:
    """A place that imports setproctitle. `guarded`: it is not reached on macOS."""

    package: str
    path: str
    line: int
    guarded: bool


def imports_of_setproctitle(progress: Callable[[str], None]) -> tuple[list[Import], int]:
    """Return where installed distributions import setproctitle, and how many files could not be read."""
    found, skipped = [], 0
    for package in packages():
        progress(f"who imports setproctitle: {package.name}")
        own = package.name in ("setproctitle", DISTRIBUTION)
        for file in [] if own else package.files:
            path = Path(str(file.locate()))
            try:
                # Hardly any file names setproctitle, and parsing takes long.
                if file.suffix != ".py" or b"setproctitle" not in (source := read(path)):
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    places = list(_imports(ast.parse(source), False))
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                skipped += 1
            else:
                found += [Import(package.name, str(path), line, guarded) for line, guarded in places]
    return found, skipped


def _imports(node: ast.AST, guarded: bool) -> Iterator[tuple[int, bool]]:
    """Yield the line of each import of setproctitle in a syntax tree, and whether an `if` keeps macOS off."""
    names: list[Any] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module]
    elif isinstance(node, ast.Call) and "import" in getattr(node.func, "attr", getattr(node.func, "id", "")):
        names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    if any(str(name).partition(".")[0] == "setproctitle" for name in names):
        yield getattr(node, "lineno", 0), guarded
    elsewhere = _not_taken_on_macos(node)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, guarded or child in elsewhere)


def _not_taken_on_macos(node: ast.AST) -> list[ast.stmt]:
    """Return the branch of an `if` on the platform that macOS does not take; [] for anything else."""
    parts = list(ast.walk(node.test)) if isinstance(node, ast.If) else []
    if not any(isinstance(part, ast.Constant) and str(part.value).lower() == "darwin" for part in parts):
        return []
    assert isinstance(node, ast.If)
    negative = any(isinstance(part, (ast.Not, ast.NotEq, ast.NotIn)) for part in parts)
    return node.body if negative else node.orelse


TIME = re.compile(rb"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,]\d+)? ?(Z|[+-]\d\d:?\d\d)?")
COMPONENT = re.compile(rb"(?:\x1b\[[\d;]*m)*([a-z][a-z-]{2,30})\s*(?:\x1b\[[\d;]*m)*\s?\| ")
SIGNS = {
    "death": rb"SIGSEGV|(exited with '|terminated due to )signal 11",
    "dump": rb"Fatal Python error: Segmentation fault",
    "refused": rb"/execution/[^\n]{0,500}?401 Unauthorized",
}
SIGN = re.compile(b"|".join(b"(?P<%s>%s)" % (kind.encode(), sign) for kind, sign in SIGNS.items()))
NEEDED = (b"SIGSEGV", b"signal 11", b"Segmentation fault", b"401 Unauthorized")  # one of them in each sign
CHUNK = 2**20
LINE = 2**16  # what is further away than this is not taken for part of a line


def log_files(places: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the regular files at or below the places, each with the name of what it is the log of."""
    for place in places:
        if place.is_file():
            yield place, place.stem
        for directory, _, names in os.walk(place):
            for path in (Path(directory, name) for name in sorted(names)):
                inside = path.relative_to(place).parts
                if path.is_file() and not path.is_symlink():
                    yield path, inside[0] if len(inside) > 1 else path.stem


@dataclass(frozen=True)
class Sighting:
    """A line of a log with a sign of trouble."""

    kind: str  # of SIGNS
    component: str
    when: float
    where: str  # path:line


def sightings(path: Path, component: str) -> Iterator[Sighting]:
    """Yield each line of a log with a sign, in constant memory however large file and lines are.

    The component is the line's prefix as `airflow standalone` writes it, or else the one given. A
    line without a time, as those of a dump are, has the last one before it. Raises OSError.
    """
    with path.open("rb") as file:
        data, line, more, when = b"", 1, True, os.fstat(file.fileno()).st_mtime
        while more:
            chunk = file.read(CHUNK)
            data, more = data + chunk, bool(chunk)
            done = len(data)
            if more:  # The last line goes with the next chunk.
                done = data.rfind(b"\n", max(0, done - LINE)) + 1 or max(0, done - LINE)
            counted, end = 0, -1
            # A search for plain texts is many times as fast as one for the signs.
            texts = [re.escape(text) for text in NEEDED if text in data]
            for place in sorted(match.start() for text in texts for match in re.finditer(text, data)):
                if not end <= place < done:
                    continue
                start = data.rfind(b"\n", max(0, place - LINE), place) + 1 or max(0, place - LINE)
                end = data.find(b"\n", place, place + LINE)
                end = min(len(data), place + LINE) if end < 0 else end
                sign = SIGN.search(data, start, end)
                if sign is None:
                    continue
                line, counted = line + data.count(b"\n", counted, start), start
                prefix = COMPONENT.match(data, start, end)
                own = TIME.search(data, start, end)
                when = _last_time(data, *(own.span() if own else (start - LINE // 4, start)), when)
                source = prefix.group(1).decode() if prefix else component
                yield Sighting(next(kind for kind in SIGNS if sign[kind]), source, when, f"{path}:{line}")
            line += data.count(b"\n", counted, done)
            when = _last_time(data, done - LINE // 4, done, when)
            data = data[done:]


def _last_time(data: bytes, start: int, end: int, otherwise: float) -> float:
    """Return the last time in a part of a log."""
    times = TIME.findall(data, max(0, start), end)
    return (_timestamp(*times[-1]) if times else None) or otherwise


@functools.lru_cache(maxsize=4096)
def _timestamp(day: bytes, time: bytes, zone: bytes) -> float | None:
    """Return the time as seconds since the epoch, None if it is no time; without a zone it is local."""
    text = b"%sT%s%s" % (day, time, zone)
    try:
        return datetime.datetime.strptime(text.decode(), "%Y-%m-%dT%H:%M:%S" + "%z" * bool(zone)).timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class CrashReport:
    """A macOS crash report: the crashed thread's frames, innermost first, and what the system added."""

    process: str
    when: float | None
    frames: list[str]  # "image symbol"
    notes: list[str]


def crash_report(path: Path) -> CrashReport:
    """Return what an `.ips` file says: a line of JSON and then a JSON body (Apple, "Interpreting the JSON
    format of a crash report"). Raises ValueError if it is malformed or truncated, OSError if unreadable."""
    header, _, body = read(path).partition(b"\n")
    try:
        name = str(json.loads(header).get("app_name", ""))
        report = json.loads(body)
        thread = report["threads"][report["faultingThread"]]
        images = [str(image.get("name", "?")) for image in report["usedImages"]]
        frames = [f"{images[frame['imageIndex']]} {frame.get('symbol', '')}" for frame in thread["frames"]]
        notes = [str(line) for lines in report.get("asi", {}).values() for line in lines]
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not built as Apple documents it: {type(error).__name__} {error}") from error
    when = TIME.match(str(report.get("captureTime")).encode())
    return CrashReport(
        str(report.get("procName", name)), _timestamp(*when.groups(b"")) if when else None, frames, notes
    )


def airflow_setting(section: str, key: str) -> dict[str, str]:
    """Return the values that Airflow's environment variable and airflow.cfg give, by where they stand."""
    values = {}
    variable = f"AIRFLOW__{section}__{key}".upper()
    for name in (variable, f"{variable}_CMD", f"{variable}_SECRET"):
        values[name] = os.environ.get(name, "")
    file = airflow_home() / "airflow.cfg"
    parser = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(OSError, ValueError, configparser.Error):
        parser.read_string(read(file).decode())
        values[str(file)] = parser.get(section, key, fallback="")
    return {where: value for where, value in values.items() if value}


def airflow_home() -> Path:
    """Return Airflow's home directory."""
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()


def get(url: str, timeout: float) -> tuple[int, bytes]:
    """GET a page past every proxy; return its status and up to 64 KiB of it. Raises OSError, HTTPException."""
    # Not urllib.request: on macOS it loads _scproxy, which is one of the suspects.
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with contextlib.closing(kind(parts.netloc, timeout=timeout)) as connection:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read(LINE)
