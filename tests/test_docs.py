"""What the documents point at is there."""

from __future__ import annotations

import re
import shlex
import urllib.parse
from pathlib import Path

import pytest
from support.environments import ROOT

from airflow_setproctitle_shim.diagnosis import cli

DOCUMENTS = sorted(
    path for at in ("*.md", "docs/**/*.md", "benchmarks/*.md") for path in ROOT.glob(at)
)
NAMES = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
LINK = re.compile(
    r"\]\(\s*<?([^)>\s]+)[^)]*\)|<(https?://[^>\s]+)>|(?:src|srcset|href)=\"([^\"]+)\""
)


def prose(document: Path) -> str:
    """The text without code, where brackets and parentheses are no links."""
    text = re.sub(r"^(```|~~~).*?^\1", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def links(document: Path) -> list[str]:
    """What the document links to."""
    return [next(filter(None, groups)) for groups in LINK.findall(prose(document))]


def anchors(document: Path) -> set[str]:
    """The names that links to the document's headings may end in, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    words = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in words}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        url = urllib.parse.urlsplit(link)
        if url.scheme:
            assert url.scheme == "https", link
            continue
        target = (
            (document.parent / urllib.parse.unquote(url.path)).resolve() if url.path else document
        )
        assert target.exists(), f"{document.name}: {link}"
        if url.fragment and target.suffix == ".md":
            assert url.fragment in anchors(target), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_command_of_ours_is_one_that_the_command_line_knows(document: Path) -> None:
    commands = re.findall(
        r"^(?:    |\$ )?(?:airflow-setproctitle-shim|\S*python -m airflow_setproctitle_shim) (.*)$",
        document.read_text(),
        flags=re.MULTILINE,
    )
    for command in commands:
        typed, _, _ = command.partition(" > ")
        cli.parse(shlex.split(typed, comments=True))
