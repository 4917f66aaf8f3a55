"""Judges the facts of environment.py: findings, each with its evidence and one remedy. No output."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from . import environment


@dataclass(frozen=True)
class Finding:
    """Something that needs attention: what it is, how it shows, and what mends it."""

    id: str
    severity: str  # "error": workers can die; "warning": look at it; "info": good to know
    evidence: str
    remedy: str
    source: str = ""


REINSTALL = f"{sys.executable} -m pip install --force-reinstall --no-deps {environment.DISTRIBUTION}"


def startup_file_skipped() -> Finding | None:
    """Return why site did not run the startup file that this Python reads, or None if it should have."""
    file = next((file for file in environment.startup_files() if file.used), None)
    if file is None:
        evidence = f"{environment.DISTRIBUTION} is importable but not installed"
        remedy = REINSTALL
    elif sys.flags.no_site:
        evidence = f"Python was started with -S, which skips {file.path}"
        remedy = "start Python without -S"
    elif not file.exists:
        evidence, remedy = f"{file.path} is missing", REINSTALL
    elif file.hidden:
        evidence = f"{file.path} is hidden by macOS, and Python skips hidden startup files"
        remedy = f"chflags -R nohidden {sys.prefix}"
    elif not file.in_site_directory:
        evidence = f"{file.path} lies where site does not look for startup files"
        remedy = f"{sys.executable} -m airflow_setproctitle_shim sitecustomize --write {file.path.parent}"
    elif not file.intact:
        evidence, remedy = f"{file.path} is not the file that was installed", REINSTALL
    else:
        return None
    return Finding(
        "startup-file-skipped", "error", evidence, remedy, "https://github.com/python/cpython/issues/113659"
    )
