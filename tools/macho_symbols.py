"""Lists what the macOS wheels of setproctitle and processtitle link and import, read with lief.

    python tools/macho_symbols.py [REQUIREMENT ...]     default: the versions named below

The evidence behind "processtitle calls LaunchServices only outside fork_safe_only": its extension
imports nothing of LaunchServices and links no ApplicationServices; it can get there only by the
dlopen() in darwin.cpp's LaunchServices constructor, which darwinPrepare(forkSafe) runs if not forkSafe.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import lief

DEFAULT = ("setproctitle==1.3.8", "processtitle==1.3")
TELLING = ("CFBundle", "dlopen", "dlsym", "LS", "NSGetArgv", "NSGetArgc", "NSGetEnviron")


def wheel(requirement: str, directory: Path) -> Path:
    """Download the requirement's macOS wheel for arm64 and Python 3.12."""
    platforms = [
        option for tag in ("macosx_11_0_arm64", "macosx_10_13_universal2") for option in ("--platform", tag)
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        *platforms,
    ]
    subprocess.run([*command, "--python-version", "3.12", "-d", str(directory), requirement], check=True)
    return next(directory.glob(f"{requirement.partition('==')[0]}-*.whl"))


def extensions(path: Path) -> dict[str, lief.MachO.FatBinary]:
    """Return the wheel's extension modules."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        parsed = {name: lief.MachO.parse(io.BytesIO(archive.read(name))) for name in names}
    return {name: binary for name, binary in parsed.items() if binary is not None}


def main(requirements: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for requirement in requirements or DEFAULT:
            for name, fat in extensions(wheel(requirement, Path(directory))).items():
                for binary in fat:
                    print(f"{requirement} {name} {binary.header.cpu_type.name}")
                    print("  links:  ", *sorted(library.name for library in binary.libraries))
                    symbols = sorted(symbol.name.lstrip("_") for symbol in binary.imported_symbols)
                    print("  imports:", *[symbol for symbol in symbols if symbol.startswith(TELLING)])


if __name__ == "__main__":
    main(sys.argv[1:])
