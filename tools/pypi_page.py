"""Makes README.md fit for PyPI, where its relative links lead nowhere. hatchling runs this in every build.

The repository's address stands in one place: `[tool.hatch.metadata.hooks.custom]` in pyproject.toml.
With it, links and pictures lead there and the page has its project links. Without it, a link leaves
its words and a picture leaves nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https:)([^)\s]+)\)\n*")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https:)([^)\s]+)\)")
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
URLS = {"Source": "", "Issues": "/issues", "Changelog": "/blob/HEAD/CHANGELOG.md"}


def page(readme: str, repository: str) -> str:
    """Return README.md's text for PyPI; `repository` is an address on github.com, or "" while there is none."""
    readme = COMMENT.sub("", readme)
    if not repository:
        return LINK.sub(r"\1", PICTURE.sub("", readme))
    readme = PICTURE.sub(rf"![\1]({repository}/raw/HEAD/\2)\n\n", readme)
    return LINK.sub(lambda link: f"[{link[1]}]({_absolute(link[2], repository)})", readme)


def _absolute(link: str, repository: str) -> str:
    """Return where a link of README.md leads: into the repository, or for "#..." to its front page."""
    return repository + link if link.startswith("#") else f"{repository}/blob/HEAD/{link}"


class PyPIPage(MetadataHookInterface):
    """Gives the distribution its description and its project links."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme` and `urls`; hatchling calls this."""
        repository = self.config["repository"].rstrip("/")
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": page(readme, repository)}
        metadata["urls"] = {name: repository + path for name, path in URLS.items()} if repository else {}
