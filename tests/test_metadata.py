"""What PyPI shows of the package: the whole README, links that lead somewhere."""

from __future__ import annotations

import email
import email.message
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from environments import ROOT, uv

ADDRESS = "https://github.com/example/shim"
LINK = re.compile(r"\]\(([^)\s]+)\)")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def metadata(wheel: Path) -> email.message.Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture
def page(metadata: email.message.Message) -> str:
    """The text of PyPI's page: METADATA's body."""
    body = metadata.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body.decode()


def test_no_link_of_the_page_is_relative(page: str) -> None:
    links = LINK.findall(page)
    assert links and all(link.startswith("https://") for link in links), links


def test_the_page_has_every_word_of_the_readme(page: str) -> None:
    assert re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", page) == re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", README)


def test_with_an_address_every_link_of_the_readme_leads_to_a_file_of_the_repository(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "src", copy / "src")
    shutil.copy(ROOT / "README.md", copy)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [replacement] = re.findall(r"With one, (replacement = '.*')", pyproject)
    without = "replacement = '\\1' }"
    assert without in pyproject
    changed = pyproject.replace(without, replacement.replace("https://ADDRESS", ADDRESS) + " }")
    (copy / "pyproject.toml").write_text(changed, encoding="utf-8")
    command = [sys.executable, "-m", "hatchling", "metadata", "readme"]
    done = subprocess.run(command, cwd=copy, check=True, capture_output=True, encoding="utf-8")
    paths = [link[len(ADDRESS) :] for link in LINK.findall(done.stdout) if link.startswith(ADDRESS)]
    assert len(paths) == sum(not link.startswith("https:") for link in LINK.findall(README)) > 0
    for path in paths:
        assert (ROOT / re.sub(r"^/blob/HEAD/|#.*", "", path)).is_file(), path


@pytest.mark.slow
def test_pypi_can_render_the_page(page: str, tmp_path: Path) -> None:
    text = tmp_path / "page.md"
    text.write_text(page, encoding="utf-8")
    options = ["--from", "readme-renderer[md]", "python", "-m", "readme_renderer", "--format", "md"]
    html = uv("tool", "run", *options, str(text))
    assert "<table>" in html and "<pre" in html
    targets = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert targets and all(target.startswith(("https://", "#user-content-")) for target in targets)
