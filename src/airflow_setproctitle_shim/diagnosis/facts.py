"""What is installed in this environment, where it lies, and how to install more."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import shlex
import site
import sys
from pathlib import Path

PACKAGE, DISTRIBUTION = "airflow_setproctitle_shim", "airflow-setproctitle-shim"
PYTHON = shlex.quote(sys.executable or "python")
COMMAND = f"{PYTHON} -m {PACKAGE}"


def version(name: str) -> str:
    """Return an installed distribution's version, "" if there is none."""
    with contextlib.suppress(Exception):  # Metadata, and what reads it, may be in any state.
        from importlib_metadata import Distribution

        return str(Distribution.from_name(name).version or "")
    return ""


def origin(module: str) -> str:
    """Return the file that importing a module runs here, or "". Others' finders may raise anything."""
    with contextlib.suppress(Exception):
        return getattr(importlib.util.find_spec(module), "origin", None) or ""
    return ""


def install(requirement: str = DISTRIBUTION, how: str = "--force-reinstall --no-deps") -> str:
    """Return the command that installs into this environment, which uv may have made without pip."""
    program = f"{PYTHON} -m pip install" if origin("pip") else f"uv pip install --python {PYTHON}"
    return f"{program} {how} {requirement}"


def startup_file() -> Path | None:
    """Return where the startup file should be, None if the shim is not installed.

    Raises what importing a broken importlib_metadata raises.
    """
    from importlib_metadata import Distribution

    with contextlib.suppress(Exception):
        return Path(str(Distribution.from_name(DISTRIBUTION).locate_file(f"{PACKAGE}.pth")))
    return None


def is_read(directory: Path) -> bool:
    """Return whether site processes a directory's startup files in this interpreter."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return directory.resolve() in [Path(place).resolve() for place in [*site.getsitepackages(), *user]]


def installed_at() -> str:
    """Return when the shim was installed: the time of its RECORD, or else of this file."""
    records = list[Path]()
    with contextlib.suppress(Exception):
        path = startup_file()
        records = [*path.parent.glob(f"{PACKAGE}-*.dist-info/RECORD")] if path else []
    seconds = max(file.stat().st_mtime for file in records or [Path(__file__)])
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y-%m-%d %H:%M:%S} +0000"
