"""What is installed here and from where, the startup file, and the command that installs.

Raises what importing a broken importlib_metadata raises, where no more is said.
"""

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


def startup_file() -> tuple[Path, bool]:
    """Return where the startup file should be, and whether Python reads such there. Raises LookupError if nowhere."""
    from importlib_metadata import Distribution

    try:
        path = Path(str(Distribution.from_name(DISTRIBUTION).locate_file(f"{PACKAGE}.pth")))
    except Exception as error:  # Metadata may be in any state.
        raise LookupError(DISTRIBUTION) from error
    places = [*site.getsitepackages(), *[site.getusersitepackages()][: bool(site.ENABLE_USER_SITE)]]
    return path, path.parent.resolve() in [Path(place).resolve() for place in places]


def installed() -> str:
    """Return when the shim was installed: the time of its RECORD, or else of this file."""
    records = [Path(__file__)]
    with contextlib.suppress(Exception):
        records = [*startup_file()[0].parent.glob(f"{PACKAGE}-*.dist-info/RECORD")] or records
    at = datetime.datetime.fromtimestamp(
        max(file.stat().st_mtime for file in records), datetime.timezone.utc
    )
    return f"{at:%Y-%m-%d %H:%M:%S} +0000"
