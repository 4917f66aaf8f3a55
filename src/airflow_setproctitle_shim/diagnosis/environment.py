"""Facts about this environment, gathered and not judged. Imported by the command line and by
airflow.py once something is wrong; never at interpreter start. Prints nothing."""

from __future__ import annotations

import ast
import base64
import configparser
import contextlib
import datetime
import hashlib
import importlib.util
import io
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
from typing import Any, NamedTuple

from importlib_metadata import Distribution, PackageNotFoundError, PackagePath

from .. import VARIABLE, setting

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
    found = []
    for suffix, used in ((".pth", sys.version_info < (3, 15)), (".start", sys.version_info >= (3, 15))):
        name = f"airflow_setproctitle_shim{suffix}"
        path = Path(str(dist.locate_file(name)))
        found.append(
            StartupFile(
                path=path,
                exists=path.exists(),
                hidden=path.exists() and is_hidden(path.lstat()),
                owned=name in recorded,
                intact=name in recorded and is_intact(recorded[name]),
                in_site_directory=path.parent.resolve() in site_directories(),
                used=used,
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
    dist, processtitle = installed("setproctitle"), installed("processtitle")
    return {
        "platform": sys.platform,
        "variable": {"name": VARIABLE, "value": os.environ.get(VARIABLE)},
        "python": {"version": sys.version.split()[0], "executable": sys.executable},
        "startup_files": [asdict(file) for file in startup_files()],
        "finders": [_name(finder) for finder in sys.meta_path],
        "setproctitle": {"version": dist.version if dist else None, "origin": origin_of_setproctitle()},
        "titles": {
            "shown": setting() == "titles",
            "processtitle": processtitle.version if processtitle else None,
        },
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


def installed_at() -> float:
    """Return when the shim was installed here: the time its RECORD was written, 0 if there is none."""
    dist = installed(DISTRIBUTION)
    paths = [Path(str(file.locate())) for file in (dist.files if dist else None) or []]
    return next((path.stat().st_mtime for path in paths if path.name == "RECORD" and path.exists()), 0.0)


def packages() -> dict[str, Distribution]:
    """Return the installed distributions by name, without those whose metadata cannot be read."""
    found: dict[str, Distribution] = {}
    for dist in Distribution.discover():
        # Other people's metadata may raise anything.
        with contextlib.suppress(Exception):
            # The first one found on sys.path is the one that is imported.
            found.setdefault(re.sub(r"[-_.]+", "-", dist.name).lower(), dist)
    return dict(sorted(found.items()))


def python_files(dist: Distribution) -> list[PackagePath]:
    """Return the Python files that a distribution's RECORD names; [] if it cannot be read."""
    with contextlib.suppress(Exception):
        return [file for file in dist.files or [] if file.suffix == ".py"]
    return []


def edited_files(dist: Distribution) -> list[Path]:
    """Return the distribution's Python files that no longer have the hash in its RECORD."""
    edited = [Path(str(file.locate())) for file in python_files(dist) if not is_intact(file)]
    return [path for path in edited if path.is_file()]


def requirers(name: str) -> list[str]:
    """Return name and version of each installed distribution that requires the one named, extras left out."""
    pattern = re.compile(rf"{re.escape(name)}\s*(?![\w.-])(?!.*\bextra\s*==)", re.IGNORECASE)
    found = set()
    for dist in Distribution.discover():
        with contextlib.suppress(Exception):
            # Parsing takes long, and hardly any METADATA has the name in it. Eggs have none.
            text = dist.read_text("METADATA")
            if (text is None or name in text.lower()) and any(map(pattern.match, dist.requires or [])):
                found.add(f"{dist.name} {dist.version}")
    return sorted(found)


class Import(NamedTuple):
    """A place that imports setproctitle. `guarded`: it is not reached on macOS."""

    package: str
    path: Path
    line: int
    guarded: bool


def imports_of_setproctitle(progress: Callable[[str], None]) -> tuple[list[Import], int]:
    """Return where installed distributions import setproctitle, and how many files could not be read."""
    found, skipped = [], 0
    for name, dist in packages().items():
        progress(f"who imports setproctitle: {name}")
        for file in [] if name in ("setproctitle", DISTRIBUTION) else python_files(dist):
            path = Path(str(file.locate()))
            try:
                # Hardly any file names setproctitle, and parsing takes long.
                if b"setproctitle" in (source := read(path)):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        tree = ast.parse(source)
                    found += [Import(name, path, line, guarded) for line, guarded in _imports(tree, False)]
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                skipped += 1
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
    elsewhere: list[ast.stmt] = []
    if isinstance(node, ast.If) and "'darwin'" in (test := ast.dump(node.test)).lower():
        elsewhere = node.body if re.search(r"\bNot(Eq|In)?\(", test) else node.orelse
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, guarded or child in elsewhere)


TIME = re.compile(rb"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,]\d+)? ?(Z|[+-]\d\d:?\d\d)?")
COMPONENT = re.compile(rb"(?:\x1b\[[\d;]*m)*([a-z][a-z-]{2,30})\s*(?:\x1b\[[\d;]*m)*\s?\| ")
SIGN = re.compile(
    rb"(?P<death>SIGSEGV|(?:exited with '|terminated due to )signal 11)"
    rb"|(?P<dump>Fatal Python error: Segmentation fault)"
    rb"|(?P<refused>/execution/[^\n]{0,500}?401 Unauthorized)"
)
BLOCK, LINE = 2**20, 2**16  # A block is read to the end of its last line, if that is not far.
OVERLAP = 2**10  # of a line's parts in two blocks, longer than any sign
LOOK_BACK = 2**12  # how far before a line that has no time one is looked for


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


class Sighting(NamedTuple):
    """A line of a log with a sign of trouble."""

    kind: str  # a group of SIGN
    component: str
    when: float
    where: str  # path:line


def sightings(path: Path, component: str) -> Iterator[Sighting]:
    """Yield each line of a log with a sign, in constant memory however large file and lines are.

    The component is the line's prefix as `airflow standalone` writes it, or else the one given. A
    line without a time, as those of a dump are, has that of one shortly before it. Raises OSError.
    """
    number, seen, line, before = 1, False, b"", b""
    with path.open("rb") as file:
        while block := file.read(BLOCK) + file.readline(LINE):
            for part in io.BytesIO(block) if _may_have_a_sign(block) else [block]:
                line += part
                if not seen and _may_have_a_sign(line) and (sign := SIGN.search(line)):
                    seen, prefix = True, COMPONENT.match(line)
                    source = prefix[1].decode() if prefix else component
                    times = [TIME.search(line), *reversed([*TIME.finditer(before)])]
                    when = _timestamp(next(filter(None, times), None), os.fstat(file.fileno()).st_mtime)
                    yield Sighting(str(sign.lastgroup), source, when, f"{path}:{number}")
                before = (before + part)[-LOOK_BACK:]
                number += part.count(b"\n")
                seen = seen and b"\n" not in part
                line = line[line.rfind(b"\n") + 1 :][-OVERLAP:]


def _may_have_a_sign(text: bytes) -> bool:
    """Return whether one of the texts is there that each sign has: many times as fast as a search for SIGN."""
    return any(map(text.__contains__, (b"SIGSEGV", b"signal 11", b"Segmentation fault", b"401 Unauthorized")))


def _timestamp(time: re.Match[bytes] | None, otherwise: float) -> float:
    """Return a match of TIME as seconds since the epoch; without a zone it is local."""
    if time:
        day, clock, zone = (group.decode() for group in time.groups(b""))
        form = "%Y-%m-%d %H:%M:%S" + "%z" * bool(zone)
        with contextlib.suppress(ValueError, OverflowError):
            return datetime.datetime.strptime(f"{day} {clock}{zone}", form).timestamp()
    return otherwise


def crash_report(path: Path) -> tuple[str, float]:
    """Return the crashed thread's frames ("image symbol", innermost first) with the system's notes, a line
    each, and the time of an `.ips` file: a line of JSON and then a JSON body (Apple, "Interpreting the JSON
    format of a crash report"). Raises ValueError if it is malformed or truncated, OSError if unreadable."""
    header, _, body = read(path).partition(b"\n")
    try:
        json.loads(header)
        report = json.loads(body)
        images = [image.get("name", "?") for image in report["usedImages"]]
        frames = report["threads"][report["faultingThread"]]["frames"]
        lines = [f"{images[frame['imageIndex']]} {frame.get('symbol', '')}" for frame in frames]
        lines += [str(note) for notes in report.get("asi", {}).values() for note in notes]
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not built as Apple documents it: {type(error).__name__} {error}") from error
    return "\n".join(lines), _timestamp(TIME.search(header), path.stat().st_mtime)


def airflow_setting(section: str, key: str) -> dict[str, str]:
    """Return the values that Airflow's environment variable and airflow.cfg give, by where they stand."""
    variable = f"AIRFLOW__{section}__{key}".upper()
    names = (variable, f"{variable}_CMD", f"{variable}_SECRET")
    values = {name: os.environ.get(name) for name in names}
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
        return answer.status, answer.read(2**16)
