"""The text of the package page: the README, in which a link to a file of the repository is absolute, or none."""

import pathlib
import re

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def page(readme: str, repository: str | None) -> str:
    """The README for a place where its relative links lead nowhere.

    Args:
      readme: Markdown.
      repository: `project.urls.Repository` of pyproject.toml; None where there is none, and such links become their text.
    """

    def absolute(match: re.Match) -> str:
        if re.match(r"[a-z]+:|#", match["target"]):
            return match[0]
        if repository is None:
            return match["text"]
        return f"[{match['text']}]({repository.rstrip('/')}/blob/main/{match['target']})"

    parts = re.split(r"(^```.*?^```)", readme, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LINK.sub(absolute, part) for part in parts)


class PackagePage(MetadataHookInterface):
    """Called by hatchling."""

    def update(self, metadata: dict) -> None:
        """Puts the text into the metadata."""
        readme = (pathlib.Path(self.root) / "README.md").read_text()
        text = page(readme, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
