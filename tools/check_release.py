"""Says what keeps the files in a directory from being released under a tag.

    python tools/check_release.py TAG [DIRECTORY]     DIRECTORY: dist

Exit status 1, and a line on stderr for each thing that is wrong, as the page of the index would be.
Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

# What README says before the first release, with one blank between words.
UNRELEASED = ("not on PyPI yet", "Once it is on PyPI")


def main(arguments: list[str]) -> int:
    """Check what the arguments name; return the exit status."""
    if len(arguments) not in (1, 2):
        print("usage: check_release.py TAG [DIRECTORY]", file=sys.stderr)
        return 2
    tag, directory = arguments[0], Path(arguments[1] if len(arguments) == 2 else "dist")
    faults = list(faults_of(tag, directory))
    for fault in faults:
        print(f"cannot be released: {fault}", file=sys.stderr)
    return 1 if faults else 0


def faults_of(tag: str, directory: Path) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong."""
    for pattern in ("*.whl", "*.tar.gz"):
        files = sorted(directory.glob(pattern))
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            yield f"there is to be one {pattern} in {directory}: {names}"
        for file in files:
            yield from (f"{file.name}: {fault}" for fault in faults_in(metadata(file), tag))


def metadata(file: Path) -> Message:
    """Return the metadata of a wheel or an sdist."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            [name] = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
            text = wheel.read(name).decode()
    else:
        with tarfile.open(file) as sdist:
            [member] = [m for m in sdist.getmembers() if re.fullmatch(r"[^/]+/PKG-INFO", m.name)]
            content = sdist.extractfile(member)
            assert content, f"{member.name} is no file"
            text = content.read().decode()
    return HeaderParser().parsestr(text)


def faults_in(metadata: Message, tag: str) -> Iterator[str]:
    """Yield what is wrong with one file's metadata."""
    if tag != f"v{metadata['Version']}":
        yield f"the tag is {tag!r}, but the version {metadata['Version']!r}"
    if not metadata.get_all("Project-URL"):
        yield "it has no Project-URL: put the repository's address into pyproject.toml"
    page = re.sub(r"[*_`\s]+", " ", str(metadata.get_payload()))
    for words in UNRELEASED:
        if words.lower() in page.lower():
            yield f"its page says {words!r}: see README.md"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
