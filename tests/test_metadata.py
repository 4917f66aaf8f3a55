"""What PyPI shows of the package: the whole README, links that lead somewhere."""

from __future__ import annotations

import email
import re
import zipfile
from pathlib import Path

import pytest
from support.environments import ROOT, uv

LINK = re.compile(r"\]\(([^)\s]+)\)")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def page(wheel: Path) -> str:
    """The text of PyPI's page: METADATA's body."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        body = email.message_from_bytes(archive.read(name)).get_payload(decode=True)
    assert isinstance(body, bytes)
    return body.decode()


def test_no_link_of_the_page_is_relative(page: str) -> None:
    links = LINK.findall(page)
    assert links and all(link.startswith("https://") for link in links), links


def test_the_page_has_every_word_of_the_readme(page: str) -> None:
    assert re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", page) == re.sub(
        r"\[([^\]]*)\]\([^)]*\)", r"\1", README
    )


@pytest.mark.slow
def test_pypi_can_render_the_page(page: str, tmp_path: Path) -> None:
    text = tmp_path / "page.md"
    text.write_text(page, encoding="utf-8")
    options = ["--from", "readme-renderer[md]", "python", "-m", "readme_renderer", "--format", "md"]
    html = uv("tool", "run", *options, str(text))
    assert "<table>" in html and "<pre" in html
    targets = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert targets and all(target.startswith(("https://", "#user-content-")) for target in targets)
