"""Lays out a macOS wheel so that a Python on Linux with the directory on PYTHONPATH imports its macOS code.

The package's own __init__.py runs, and sees macOS while it does.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from support.macos_code import wheels
from support.macos_code.image import read

# The newest release of each that has a wheel for the Python.
SETPROCTITLE = {"3.9": "setproctitle==1.3.7"}
NEWEST = "setproctitle==1.3.8"
PROCESSTITLE = "processtitle==1.3"

EXTENSION = """\
import pathlib, sys
sys.path.append({loader!r})
from macos_loader import load
sys.path.pop()  # not remove(): PYTHONPATH has it, too, and spawned children get this list
sys.modules[__name__] = load(pathlib.Path(__file__).parent, __name__)
"""
# What the loader imports must not see macOS.
PACKAGE = """\
import importlib, sys
importlib.import_module({name!r})
_truth, sys.platform = sys.platform, "darwin"
try:
    exec(compile({source!r}, __file__, "exec"))
finally:
    sys.platform = _truth
"""


def lay_out(wheel: Path, directory: Path) -> None:
    """Write the x86_64 code of an extension module in a package, and what loads it. Raises NotRun."""
    image = read(wheel, "x86_64")
    package, _, module = image.name.rpartition(".")
    place = directory / package
    place.mkdir(parents=True)
    (place / "image.bin").write_bytes(image.memory)
    facts = {name: getattr(image, name) for name in ("rebased", "bound", "symbols", "initialisers")}
    (place / "image.json").write_text(json.dumps(facts))
    (place / f"{module}.py").write_text(EXTENSION.format(loader=str(directory)))
    (place / "__init__.py").write_text(PACKAGE.format(name=image.name, source=image.package))
    (directory / "macos_loader.py").write_bytes(Path(__file__).with_name("loader.py").read_bytes())


def both(python: str, directory: Path) -> str:
    """Lay out setproctitle and, where it has a wheel for the Python, processtitle; return the first one's release."""
    release = SETPROCTITLE.get(python, NEWEST)
    lay_out(wheels.fetch(release, python, "x86_64"), directory)
    with contextlib.suppress(wheels.NoWheel):
        lay_out(wheels.fetch(PROCESSTITLE, python, "x86_64"), directory)
    return release
