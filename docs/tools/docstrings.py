"""Docstrings as mkdocstrings reads them: `.. math::` becomes a displayed formula, `:math:` one in the line."""

import re

import griffe

BLOCK = re.compile(
    r"^(?P<indent> *)\.\. math::(?P<first>[^\n]*)(?P<rest>(?:\n(?:(?P=indent) +[^\n]*| *$))*)", re.MULTILINE
)
INLINE = re.compile(r":math:`([^`]*)`")


def displayed(match) -> str:
    """A formula between lines of $$, at the indent where it was."""
    indent = match["indent"]
    lines = [line.strip() for line in [match["first"], *match["rest"].split("\n")] if line.strip()]
    return "\n".join(["", f"{indent}$$", *[indent + line for line in lines], f"{indent}$$", ""])


def rewritten(text: str) -> str:
    """A docstring in Markdown."""
    text = INLINE.sub(lambda match: f"${match[1]}$", BLOCK.sub(displayed, text))
    return re.sub(r"^Example:", "Examples:", text, flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring when it is met."""

    def on_object(self, *, obj, **kwargs) -> None:
        """Called by griffe for everything that it finds."""
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)
