"""Reads the extension module in a macOS wheel: what lies in memory, and what the dynamic linker must fill in.

Read with lief. Of the two formats of fixups, the older is understood, bind opcodes: all releases of setproctitle
and processtitle seen so far have it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import lief

lief.logging.disable()  # What is wrong with a file is told by NotRun.

MACHINES = {"arm64": lief.MachO.Header.CPU_TYPE.ARM64, "x86_64": lief.MachO.Header.CPU_TYPE.X86_64}
EXTENSION = re.compile(r"(?:(\w+)/)?(\w+)\.cpython-\d+(t?)-darwin\.so$")


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
    bound: list[
        tuple[int, str, int]
    ]  # where an address from outside goes: symbol, and how far behind it
    symbols: dict[str, int]  # the image's own
    initialisers: list[int]
    package: str  # source of the package's __init__.py, "" if the module has no package

    def word(self, at: int) -> int:
        """The 8 bytes at an address, as a number."""
        return int.from_bytes(self.memory[at : at + 8], "little")


def read(wheel: Path, machine: str) -> Image:
    """Return the code for a machine ("arm64", "x86_64") from an unpacked wheel. Raises NotRun."""
    paths = [path for path in wheel.rglob("*") if path.suffix in (".py", ".so")]
    files = {str(path.relative_to(wheel)): path.read_bytes() for path in paths}
    try:
        return _read(wheel.name, files, machine)
    except NotRun as error:
        raise NotRun(f"{wheel.name}: {error}") from None


def _read(wheel: str, files: dict[str, bytes], machine: str) -> Image:
    names = [match for match in map(EXTENSION.match, sorted(files)) if match]
    if not names:
        raise NotRun("has no extension module for macOS")
    file, package, module, free_threaded = names[0].group(0, 1, 2, 3)
    if free_threaded:
        raise NotRun("is for a free-threaded Python, whose objects are laid out in another way")
    fat = lief.MachO.parse(list(files[file]))
    if fat is None:
        raise NotRun(f"{file} is not Mach-O, or damaged")
    binaries = {binary.header.cpu_type: binary for binary in fat}
    binary = binaries.get(MACHINES[machine])
    if binary is None:
        raise NotRun(
            f"{file} has no code for {machine}, only {', '.join(t.name for t in binaries)}"
        )
    if any(len(segment.content) < segment.file_size for segment in binary.segments):
        raise NotRun(f"{file} is cut off")
    if binary.has_dyld_chained_fixups:
        raise NotRun(f"{file} has chained fixups, which are not understood")
    memory = bytearray(max(s.virtual_address + s.virtual_size for s in binary.segments))
    for segment in binary.segments:
        start = segment.virtual_address
        memory[start : start + segment.file_size] = bytes(segment.content)[: segment.file_size]
    image = Image(
        wheel=wheel,
        name=f"{package}.{module}" if package else module,
        machine=machine,
        memory=bytes(memory),
        rebased=[fixup.address for fixup in binary.relocations],
        bound=[
            (bound.address, str(bound.symbol.name).removeprefix("_"), bound.addend)
            for bound in binary.bindings
            if bound.symbol
        ],
        symbols={
            str(s.name).removeprefix("_"): s.value
            for s in binary.symbols
            if s.value and s.numberof_sections
        },
        initialisers=[],
        package=files[f"{package}/__init__.py"].decode() if package else "",
    )
    for section in binary.sections:
        if section.type == lief.MachO.Section.TYPE.MOD_INIT_FUNC_POINTERS:
            image.initialisers.extend(
                image.word(section.virtual_address + offset) for offset in range(0, section.size, 8)
            )
        elif section.type == lief.MachO.Section.TYPE.INIT_FUNC_OFFSETS:
            raise NotRun(f"{file} has initialisers of a kind that is not modelled")
    return image
