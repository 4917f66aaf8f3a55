"""What the documents point at is there, and each of their code blocks is one that something runs."""

from __future__ import annotations

import re
import shlex
import urllib.parse
from pathlib import Path

import pytest
from support.environments import ROOT, uv

from airflow_setproctitle_shim.diagnosis import cli

PLACES = ("*.md", "docs/*.md", "benchmarks/*.md", "tests/data/*.md")
DOCUMENTS = sorted({path for place in PLACES for path in ROOT.glob(place)})
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
NAMES = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
LINK = re.compile(
    r"\]\(\s*<?([^)>\s]+)[^)]*\)|<(https?://[^>\s]+)>|(?:src|srcset|href)=\"([^\"]+)\""
)
# The start of a call of ours, whatever Python is named, and its arguments up to a pipe, a redirection or the end.
COMMAND = re.compile(r"(?:\bairflow-setproctitle-shim|-m airflow_setproctitle_shim) +([^`|>;\n]*)")


def prose(document: Path) -> str:
    """The text without code, where brackets and parentheses are no links."""
    text = re.sub(
        r"^(```|~~~).*?^\1", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"`[^`\n]*`", "", text)


def links(document: Path) -> list[str]:
    """What the document links to."""
    return [next(filter(None, groups)) for groups in LINK.findall(prose(document))]


def anchors(document: Path) -> set[str]:
    """The names that links to the document's headings may end in, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), flags=re.MULTILINE)
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


def test_every_page_is_reached_by_links_from_the_readme() -> None:
    reached, follow = set(), [ROOT / "README.md"]
    while follow:
        page = follow.pop()
        reached.add(page)
        paths = [urllib.parse.urlsplit(link).path for link in links(page) if "://" not in link]
        targets = {(page.parent / path).resolve() for path in paths if path.endswith(".md")}
        follow += sorted(targets - reached)
    assert {*DOCUMENTS} == reached


def test_every_file_that_a_page_names_is_there() -> None:
    named = re.compile(r"`((?:\.ci|\.github|benchmarks|docs|src|tests|tools)/[^\s`*]+)`")
    texts = [page.read_text("utf-8") for page in DOCUMENTS]
    found = [(name, path) for name, text in zip(NAMES, texts) for path in named.findall(text)]
    assert len(found) > 20
    assert not [one for one in found if not (ROOT / one[1]).exists()]


def test_every_command_of_ours_is_one_that_the_command_line_knows() -> None:
    texts = {path.name: path.read_text("utf-8") for path in (*DOCUMENTS, *FORMS)}
    found = [(name, command) for name, text in texts.items() for command in COMMAND.findall(text)]
    commands = [
        (name, command)
        for name, command in found
        # Not the package's name in a requirement, or in a sentence.
        if command.split()[:1] and command.split()[0] in cli.COMMANDS
    ]
    assert len(commands) > 10 and {*cli.COMMANDS} == {c.split()[0] for _, c in commands}
    for name, command in commands:
        assert cli.parse(shlex.split(command.rstrip(".,)"))), name


def test_the_pages_are_not_longer_than_anybody_reads() -> None:
    lines = {name: page.read_text("utf-8").count("\n") for name, page in zip(NAMES, DOCUMENTS)}
    assert lines["README.md"] < 100 and sum(lines.values()) < 1_000, lines


@pytest.mark.slow
def test_the_forms_for_issues_are_valid() -> None:
    check = ["tool", "run", "check-jsonschema==0.39.0", "--builtin-schema"]
    forms = [str(form) for form in FORMS if form.name != "config.yml"]
    assert len(forms) == 3
    uv(*check, "vendor.github-issue-forms", *forms)
    uv(*check, "vendor.github-issue-config", str(ROOT / ".github/ISSUE_TEMPLATE/config.yml"))
