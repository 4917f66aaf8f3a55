"""Facts about this environment, gathered and not judged. Imported by the command line and by
airflow.py once something is wrong; never at interpreter start. Prints nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import site
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from importlib_metadata import Distribution, PackageNotFoundError, PackagePath

DISTRIBUTION = "airflow-setproctitle-shim"


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
        return Distribution.from_name(name)
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
        digest = hashlib.new(file.hash.mode, Path(str(file.locate())).read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def site_directories() -> list[Path]:
    """Return the directories whose startup files site processes in this interpreter."""
    if sys.flags.no_site:
        return []
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [Path(directory).resolve() for directory in [*site.getsitepackages(), *user]]
