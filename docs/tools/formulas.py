"""Formulas become MathML when the site is built: they need neither JavaScript nor the network.

A formula that does not compile, or of which a command is left over, fails the build.
"""

import html
import logging
import re
import xml.etree.ElementTree as ElementTree

from latex2mathml.converter import convert

log = logging.getLogger("mkdocs.hooks.formulas")

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\(|\\\[)(?P<latex>.*?)(?:\\\)|\\\])</(?P=tag)>', re.DOTALL
)


MATHML = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", MATHML)
NAMES = {"log", "exp", "det", "dim", "max", "min", "sup", "inf", "arg", "sin", "cos", "tanh", "tr"}
"""Operators that stand off from what follows, unless that is a bracket."""


def prepared(latex: str) -> str:
    """LaTeX as latex2mathml takes it: `align*` around lines with `&`, operators that it lacks, underscores in text."""
    latex = latex.replace("\\_", "_").replace("\\arg", "\\operatorname{arg}").replace("{aligned}", "{align*}")
    if ("&" in latex or r"\\" in latex) and r"\begin{" not in latex:
        latex = rf"\begin{{align*}}{latex}\end{{align*}}"
    return latex


OPERATORS = {
    "~": "\N{TILDE OPERATOR}",
    "\N{PERPENDICULAR}": "\N{PERPENDICULAR}",
    "\N{PLUS-MINUS SIGN}": "\N{PLUS-MINUS SIGN}",
}
"""What latex2mathml takes for letters (`\\sim`, `\\perp`, `\\pm`): browsers set operators off on both sides."""


def spaced(root: ElementTree.Element) -> None:
    """Put a thin space behind names of operators, and around operators that were taken for letters."""
    for letter in root.iter(f"{{{MATHML}}}mi"):
        if letter.text in OPERATORS:
            letter.tag, letter.text = f"{{{MATHML}}}mo", OPERATORS[letter.text]
    for parent in root.iter():
        if parent.tag.removeprefix(f"{{{MATHML}}}") not in ("math", "mrow", "mstyle", "mtd"):
            continue
        for i, child in reversed(list(enumerate(parent))):
            inner = child[0] if child.tag.endswith(("msub", "msup", "msubsup", "munder", "munderover")) else child
            last = i + 1 == len(parent) or (parent[i + 1].text or "").strip() in "([,)]"
            if (inner.text or "").strip() in NAMES and not last:
                parent.insert(i + 1, ElementTree.Element(f"{{{MATHML}}}mspace", width="0.17em"))


def mathml(latex: str, display: bool) -> str:
    """MathML of a formula; raises ValueError where something of it is not understood."""
    try:
        root = ElementTree.fromstring(convert(prepared(latex), display="block" if display else "inline"))
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    text = "".join(root.itertext())
    if "\\" in text:
        raise ValueError("not understood: " + ", ".join(re.findall(r"\\+[a-zA-Z]*", text)))
    spaced(root)
    return ElementTree.tostring(root, encoding="unicode")


def on_page_content(content: str, page, config, files) -> str:
    """Called by mkdocs with each page's HTML."""
    failed = []

    def rendered(match):
        latex = html.unescape(match["latex"]).strip()
        try:
            return f'<{match["tag"]} class="arithmatex">{mathml(latex, match["tag"] == "div")}</{match["tag"]}>'
        except ValueError as error:
            failed.append(latex)
            log.warning(f"{page.file.src_uri}: the formula {latex!r} does not compile: {error}")
            return match[0]

    content = FORMULA.sub(rendered, content)
    if len(re.findall(r'class="arithmatex">\\', content)) > len(failed):
        log.warning(f"{page.file.src_uri}: a formula was not found as one")
    return content
