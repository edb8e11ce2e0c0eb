"""SVG figures as a part of an HTML page, in the colours of its theme."""

import re
from xml.etree import ElementTree

from moe_jax.compare.report.figures.canvas import FAINT, INK, PAPER, Figure

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", PAPER: "var(--paper)"}
_FONT = re.compile(r"font: (?:[\w.-]+ )*?([\d.]+px) [^;]+")


def inline_svg(figure: Figure) -> str:
    """Returns the `<svg>` element of a figure with its title as the accessible name.

    Ids get the name of the figure as a prefix, so that a page can hold several figures. Ink, grid
    and background take their colours from the CSS variables `--ink`, `--faint` and `--paper`.
    """
    root = ElementTree.fromstring(figure.svg)
    for element in root.iter():
        _adapt(element, f"{figure.name}-")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    title = ElementTree.Element(f"{{{_SVG}}}title", {"id": f"{figure.name}-title"})
    title.text = figure.title
    description = ElementTree.Element(f"{{{_SVG}}}desc", {"id": f"{figure.name}-desc"})
    description.text = f"{figure.description} {figure.values}"
    root[:0] = [title, description]
    root.set("role", "img")
    root.set("aria-labelledby", f"{figure.name}-title {figure.name}-desc")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK[1:].partition("}")[0])
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, prefix: str) -> None:
    for name, value in element.attrib.items():
        if name == "id":
            value = prefix + value
        elif name == _LINK:
            value = "#" + prefix + value.removeprefix("#")
        elif name == "clip-path":
            value = value.replace("url(#", f"url(#{prefix}")
        elif name == "style":
            for colour, variable in _VARIABLES.items():
                value = value.replace(colour, variable)
            value = _FONT.sub(r"font-size: \1", value)
        element.set(name, value)
