"""What is installed here and from where, the startup file, and the command that installs.

Runs when somebody asks. Raises what importing a broken importlib_metadata raises, where no more is
said.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import re
import shlex
import site
import sys
from collections.abc import Iterator
from importlib import metadata  # for where importlib_metadata itself may be broken
from pathlib import Path
from urllib.parse import unquote, urlsplit

PACKAGE, DISTRIBUTION = "airflow_setproctitle_shim", "airflow-setproctitle-shim"
PYTHON = shlex.quote(sys.executable or "python")
COMMAND = f"{PYTHON} -m {PACKAGE}"
# What is in the startup file, src/airflow_setproctitle_shim.pth.
STARTUP_LINE = f'import sys; "darwin" == sys.platform and __import__("{PACKAGE}").startup()'


def version(name: str) -> str:
    """Return an installed distribution's version, "" if there is none."""
    with contextlib.suppress(Exception):  # Metadata, and what reads it, may be in any state.
        from importlib_metadata import Distribution

        return str(Distribution.from_name(name).version or "")
    return ""


def origin(module: str) -> str:
    """Return the file that importing a module runs here, or ""."""
    with contextlib.suppress(Exception):  # Others' finders may raise anything.
        return getattr(importlib.util.find_spec(module), "origin", None) or ""
    return ""


def startup_file() -> tuple[Path, bool]:
    """Return where the startup file should be, and whether Python reads such there.

    Raises LookupError if the shim is not installed.
    """
    from importlib_metadata import Distribution

    try:
        path = Path(str(Distribution.from_name(DISTRIBUTION).locate_file(f"{PACKAGE}.pth")))
    except Exception as error:  # Metadata may be in any state.
        raise LookupError(DISTRIBUTION) from error
    places = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        places.append(site.getusersitepackages())
    return path, path.parent.resolve() in [Path(place).resolve() for place in places]


def installed() -> str:
    """Return when the shim was installed: the time of its RECORD, this file, or its archive."""
    here = Path(__file__)
    files = [next(path for path in (here, *here.parents) if path.exists())]
    with contextlib.suppress(Exception):
        files = [*startup_file()[0].parent.glob(f"{PACKAGE}-*.dist-info/RECORD")] or files
    newest = max(file.stat().st_mtime for file in files)
    at = datetime.datetime.fromtimestamp(newest, datetime.timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S} +0000"


def install(*arguments: str) -> str:
    """Return the command that installs into this environment, which uv may have made without pip.

    `arguments` are requirements and pip's options, and are quoted for a shell.
    """
    has_pip = bool(origin("pip"))
    words = ["-m", "pip", "install"] if has_pip else ["pip", "install", "--python"]
    options = []
    if has_pip and _is_in_user_site():
        options.append("--user")
    # PEP 668. The shim is there, so whoever put it there has decided that already.
    marker = Path(os.__file__).with_name("EXTERNALLY-MANAGED")
    if sys.prefix == sys.base_prefix and marker.exists():
        options.append("--break-system-packages")
    program = [PYTHON, *words] if has_pip else ["uv", *words, PYTHON]
    return " ".join([*program, *options, *map(shlex.quote, arguments)])


def reinstall() -> str:
    """Return the command that installs the shim anew, and nothing else.

    Newer dependencies might not suit the constraints that somebody installs by.
    """
    return install("--force-reinstall", "--no-deps", *_source())


def mend(name: str, error: Exception) -> str:
    """Return the command that mends a distribution whose import raised `error`."""
    requirement = _suiting_all(name)
    if isinstance(error, ModuleNotFoundError):  # It, or something that it requires, is missing.
        return install(requirement)
    for dist in _distributions(name):
        return install("--force-reinstall", f"{name}=={dist.version}")
    return install("--force-reinstall", requirement)


def _is_in_user_site() -> bool:
    user = Path(site.getusersitepackages())
    return bool(site.ENABLE_USER_SITE and [*user.glob(f"{PACKAGE}-*.dist-info")])


def _source() -> list[str]:
    """Return what pip gets to install the shim from where it came (PEP 610), or its name."""
    clone = Path(__file__).parents[3]
    if version(DISTRIBUTION) == "":  # on PYTHONPATH from a clone, perhaps
        return [str(clone)] if (clone / "pyproject.toml").exists() else [DISTRIBUTION]
    with contextlib.suppress(Exception):  # Metadata may be in any state.
        direct = json.loads(next(_distributions(DISTRIBUTION)).read_text("direct_url.json") or "")
        if "vcs_info" in direct:
            return [f"{direct['vcs_info']['vcs']}+{direct['url']}"]
        path = unquote(urlsplit(direct["url"]).path)
        if direct["url"].startswith("file:") and Path(path).exists():
            return ["-e", path] if direct.get("dir_info", {}).get("editable") else [path]
    return [DISTRIBUTION]


def _distributions(name: str | None = None) -> Iterator[metadata.Distribution]:
    """Return what is installed, of that name if one is given.

    Not by metadata.distributions(), which asks everybody on sys.meta_path: an importlib_metadata
    that broke while it was imported has left itself there, and is imported again each time it is
    asked.
    """
    context = metadata.DistributionFinder.Context(name=name)
    return iter(metadata.MetadataPathFinder.find_distributions(context))


def _suiting_all(name: str) -> str:
    """Return a requirement that suits all that is installed and requires it in any case."""
    pattern = re.compile(rf"(?i){re.escape(name)}\s*\(?([<>=!~][^;)]*)\)?\s*$")
    bounds = set()
    for dist in _distributions():
        with contextlib.suppress(Exception):  # Other people's metadata may raise anything.
            found = [pattern.match(line) for line in dist.requires or ()]
            bounds |= {match[1].strip() for match in found if match}
    return name + ",".join(sorted(bounds))
