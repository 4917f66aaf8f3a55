"""The table of programs that import setproctitle is true of their newest releases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.environments import uv

from airflow_setproctitle_shim.diagnosis import callers

IMPORTS = re.compile(
    r"(?m)^[ \t]*(?:from setproctitle|import setproctitle)\b|import\w*\(['\"]setproctitle['\"]\)"
)
MAC = re.compile(r"(?i)darwin|is_mac|macos|use_setproctitle")
NEAR = 8  # lines


def seen(directory: Path) -> str:
    """What the source files of a program do on macOS, as far as the lines around each import tell."""
    ends = []
    for path in directory.rglob("*.py"):
        lines = path.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines):
            if IMPORTS.search(line) and not {"test", "tests"} & {
                *path.relative_to(directory).parts
            }:
                ends.append(
                    bool(MAC.search("\n".join(lines[max(0, number - NEAR) : number + NEAR])))
                )
    if not ends:
        return callers.GONE
    return callers.GUARDED if all(ends) else callers.CALLS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({row.name for row in callers.CALLERS}))
def test_the_newest_release_does_what_the_table_says(name: str, tmp_path: Path) -> None:
    options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
    options += ["--python-platform", "aarch64-apple-darwin", "--target", str(tmp_path)]
    try:
        uv("pip", "install", "--quiet", *options, name)
    except AssertionError as error:
        pytest.skip(f"the index gave no wheel of {name} for a Mac: {str(error).splitlines()[-1]}")
    [metadata] = tmp_path.glob("*.dist-info/METADATA")
    version = re.findall(r"(?m)^Version: (\S+)", metadata.read_text())[0]
    assert seen(tmp_path) == callers.what(name, version, requires=False), version
