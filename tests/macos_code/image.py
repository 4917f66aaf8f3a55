"""Reads the extension module in a macOS wheel: what lies in memory, and what the dynamic linker must fill in.

Read with lief. Both formats of fixups are understood, bind opcodes and chained fixups; the releases of
setproctitle and processtitle seen so far all have the first.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lief

MACHINES = {"arm64": lief.MachO.Header.CPU_TYPE.ARM64, "x86_64": lief.MachO.Header.CPU_TYPE.X86_64}
SUFFIX = re.compile(r"\.cpython-(\d+)(t?)-darwin\.so$")


class NotRun(Exception):
    """Why the code in a wheel cannot be run: one line that names the wheel."""


@dataclass(frozen=True)
class Image:
    """An extension module's machine code for one kind of machine. Addresses count from its own start."""

    wheel: str
    name: str  # the module's, with its package: "setproctitle._setproctitle"
    machine: str
    memory: bytes
    rebased: list[int]  # where an address of the image's own lies
    bound: list[tuple[int, str, int]]  # where an address from outside goes: symbol, and how far behind it
    symbols: dict[str, int]  # the image's own
    initialisers: list[int]
    package: str  # source of the package's __init__.py, "" if the module has no package

    def word(self, at: int) -> int:
        """The 8 bytes at an address, as a number."""
        return int.from_bytes(self.memory[at : at + 8], "little")


def read(wheel: Path, machine: str) -> Image:
    """Return the code for a machine ("arm64", "x86_64") from a wheel, a file or unpacked. Raises NotRun."""
    try:
        if machine not in MACHINES:
            raise NotRun(f"no such machine: {machine!r}; there are {', '.join(MACHINES)}")
        return _read(wheel, zipfile.Path(wheel) if wheel.is_file() else wheel, machine)
    except NotRun as error:
        raise NotRun(f"{wheel.name}: {error}") from None
    except (OSError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise NotRun(f"{wheel.name}: not a whole wheel: {' '.join(str(error).split())}") from None


def _read(wheel: Path, root: Path | zipfile.Path, machine: str) -> Image:
    modules = list(_extensions(root))
    if not modules:
        raise NotRun("has no extension module for macOS")
    package, file = modules[0]
    suffix = SUFFIX.search(file.name)
    assert suffix
    if suffix[2]:
        raise NotRun("for a free-threaded Python, whose objects are laid out in another way")
    content = file.read_bytes()
    fat = lief.MachO.parse(list(content))
    if fat is None:
        raise NotRun(f"{file.name} is not Mach-O, or damaged")
    binaries = {fat.at(n).header.cpu_type: fat.at(n) for n in range(fat.size)}
    binary = binaries.get(MACHINES[machine])
    if binary is None:
        raise NotRun(f"{file.name} has no code for {machine}, only {', '.join(t.name for t in binaries)}")
    if any(len(segment.content) < segment.file_size for segment in binary.segments):
        raise NotRun(f"{file.name} is cut off")
    memory = bytearray(max(s.virtual_address + s.virtual_size for s in binary.segments))
    for segment in binary.segments:
        start = segment.virtual_address
        memory[start : start + segment.file_size] = bytes(segment.content)[: segment.file_size]
    rebased = []
    for fixup in binary.relocations:
        if isinstance(fixup, lief.MachO.RelocationFixup):  # A chained one's place holds the way to the next.
            memory[fixup.address : fixup.address + 8] = fixup.target.to_bytes(8, "little")
        rebased.append(fixup.address)
    image = Image(
        wheel=wheel.name,
        name=".".join([*package, file.name.partition(".")[0]]),
        machine=machine,
        memory=bytes(memory),
        rebased=rebased,
        bound=[
            (bound.address, str(bound.symbol.name).removeprefix("_"), bound.addend)
            for bound in binary.bindings
            if bound.symbol
        ],
        symbols={
            str(s.name).removeprefix("_"): s.value for s in binary.symbols if s.value and s.numberof_sections
        },
        initialisers=[],
        package=(root / package[0] / "__init__.py").read_text("utf-8") if package else "",
    )
    for section in binary.sections:
        if section.type == lief.MachO.Section.TYPE.MOD_INIT_FUNC_POINTERS:
            image.initialisers.extend(
                image.word(section.virtual_address + offset) for offset in range(0, section.size, 8)
            )
        elif section.type == lief.MachO.Section.TYPE.INIT_FUNC_OFFSETS:
            raise NotRun(f"{file.name} has initialisers of a kind that is not modelled")
    return image


def _extensions(root: Path | zipfile.Path) -> Iterator[tuple[list[str], Path | zipfile.Path]]:
    """Find the wheel's extension modules for macOS, in a package or beside it."""
    for entry in sorted(root.iterdir(), key=lambda entry: entry.name):
        for file in sorted(entry.iterdir(), key=lambda file: file.name) if entry.is_dir() else [entry]:
            if SUFFIX.search(file.name):
                yield ([entry.name] if entry.is_dir() else []), file
