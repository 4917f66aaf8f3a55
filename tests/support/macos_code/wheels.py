"""Fetches macOS wheels from the package index, as `pip install` on a Mac of that kind would choose them.

They are unpacked once, into the user's cache directory, and stay there: remove it to ask the index anew.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from support.environments import CACHE, uv

PLATFORMS = {"arm64": "aarch64-apple-darwin", "x86_64": "x86_64-apple-darwin"}
PLACE = CACHE / "macos"


class NoWheel(LookupError):
    """The release has no macOS wheel for this Python and machine."""


def fetch(requirement: str, python: str, machine: str) -> Path:
    """Return the directory of the unpacked wheel of "setproctitle==1.3.8" for "3.11" and a key of PLATFORMS.

    Raises NoWheel; AssertionError if the index gives no answer.
    """
    place = PLACE / f"{requirement}-cp{python.replace('.', '')}-{machine}"
    if not place.exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=PLACE, prefix="fresh-"))
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", python]
        options += ["--python-platform", PLATFORMS[machine], "--target", str(fresh / "wheel")]
        try:
            uv("pip", "install", "--quiet", *options, requirement)
        except AssertionError as error:
            if "has no usable wheels" not in str(error):
                shutil.rmtree(fresh)
                raise
            shutil.rmtree(fresh / "wheel", ignore_errors=True)
            (fresh / "wheel").mkdir()
        try:
            (fresh / "wheel").rename(place)
        except OSError:  # Another process was faster.
            assert place.exists()
        shutil.rmtree(fresh)
    if not any(place.iterdir()):
        raise NoWheel(f"{requirement} has no macOS wheel for Python {python} on {machine}")
    return place


def releases(name: str) -> list[str]:
    """Return the versions of a project on the index, oldest first."""
    pip = ["run", "--quiet", "--no-project", "--with", "pip", "python", "-m", "pip"]
    listing = uv(*pip, "index", "versions", name)
    versions = re.findall(
        r"\d+(?:\.\d+)*", listing.partition("Available versions:")[2].partition("\n")[0]
    )
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])
