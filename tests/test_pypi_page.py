"""What PyPI shows of the package: every link works there, and what is said of it is valid and tested."""

from __future__ import annotations

import email
import email.message
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from compatibility.pythons import REQUIRED
from environments import ROOT, uv

ADDRESS = "https://github.com/example/shim"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def metadata(wheel: Path) -> email.message.Message:
    """The wheel's METADATA, whose body is the description."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def description(wheel: Path) -> str:
    """The page's text."""
    body = metadata(wheel).get_payload(decode=True)
    assert isinstance(body, bytes)
    return body.decode()


@pytest.fixture(scope="module")
def with_address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built with the repository's address in pyproject.toml, in the one place where it belongs."""
    copy = tmp_path_factory.mktemp("project") / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "results", "__pycache__"))
    pyproject = copy / "pyproject.toml"
    changed, places = re.subn(
        r'^repository = ".*"$', f'repository = "{ADDRESS}/"', pyproject.read_text(), flags=re.MULTILINE
    )
    assert places == 1
    pyproject.write_text(changed)
    uv("build", "--quiet", "--wheel", "--out-dir", str(copy.parent), str(copy))
    return next(copy.parent.glob("*.whl"))


def test_no_link_on_the_page_is_relative(wheel: Path) -> None:
    links = LINK.findall(description(wheel))
    assert links and all(link.startswith("https://") for link in links), links


def test_without_an_address_only_links_and_pictures_are_left_out(wheel: Path) -> None:
    text = description(wheel)
    assert "![" not in text and "<!--" not in text
    assert "Troubleshooting ·" in text and "pip install airflow-setproctitle-shim" in text
    assert "Project-URL" not in metadata(wheel)


def test_with_an_address_every_link_of_the_readme_leads_into_the_repository(with_address: Path) -> None:
    text = description(with_address)
    here = [link for link in LINK.findall(text) if link.startswith(ADDRESS)]
    relative = [
        link for link in LINK.findall((ROOT / "README.md").read_text()) if not link.startswith("https:")
    ]
    assert len(here) == len(relative)
    assert f"({ADDRESS}/raw/HEAD/docs/probe.svg)" in text
    assert f"({ADDRESS}/blob/HEAD/docs/troubleshooting.md)" in text
    assert f"({ADDRESS}#where-it-is-proven)" in text
    for link in here:
        path = re.sub(rf"^{ADDRESS}(/(blob|raw)/HEAD/)?|#.*", "", link)
        assert (ROOT / path).exists(), link
    assert f"Source, {ADDRESS}" in metadata(with_address).get_all("Project-URL", [])


def test_each_python_that_is_tested_is_named_and_no_other(wheel: Path) -> None:
    classifiers = metadata(wheel).get_all("Classifier", [])
    named = {line.rpartition(" :: ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)}
    # 3.14 is a column of docs/compatibility.md, but no machine must have it.
    assert named == {*REQUIRED, "3.14"}
    assert {"Programming Language :: Python :: Implementation :: PyPy", "Typing :: Typed"} <= set(classifiers)


@pytest.mark.slow
def test_every_classifier_is_one_that_pypi_accepts(wheel: Path) -> None:
    program = "import sys, trove_classifiers as t; print(*set(sys.argv[1:]) - t.classifiers, sep='\\n')"
    classifiers = metadata(wheel).get_all("Classifier", [])
    assert classifiers
    python = ["run", "--no-project", "--with", "trove-classifiers", "python", "-c", program]
    assert uv(*python, *classifiers).strip() == ""
    assert uv(*python, "No :: Such").strip() == "No :: Such"


@pytest.mark.slow
@pytest.mark.parametrize("built", ["wheel", "with_address"])
def test_the_page_is_rendered_as_pypi_renders_it(
    built: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    text = tmp_path / "page.md"
    text.write_text(description(request.getfixturevalue(built)))
    options = ["--from", "readme-renderer[md]", "python", "-m", "readme_renderer", "--format", "md"]
    html = uv("tool", "run", *options, str(text))
    assert "<table>" in html and "<pre" in html
    targets = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert targets and all(target.startswith(("https://", "#")) for target in targets)


@pytest.mark.slow
def test_pyroma_finds_nothing_amiss_but_that_developers_have_no_mail_address(with_address: Path) -> None:
    report = uv("tool", "run", "pyroma", "--min", "8", str(with_address.parent / "copy"))
    _, _, findings, rating, *_ = re.split(r"^-+$", report, flags=re.MULTILINE)
    assert findings.strip() == "Your package does not have author-email data."
    assert "Final rating" in rating
