"""HTML and Markdown of a report, from the templates beside this file.

Question, names of arms, commands and all other texts come from users. Everything that a template
shows is escaped; the figures are the only markup that does not come from a template.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from moe_jax.compare.report.digits import DASH
from moe_jax.compare.report.figures import Figure
from moe_jax.compare.report.figures.inline_svg import inline_svg
from moe_jax.compare.report.page import Page
from moe_jax.formatting import printable

_TEMPLATES = Path(__file__).parent / "templates"
# What Markdown gives a meaning to anywhere, and at the start of a line.
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$@])")
_MARKDOWN_START = re.compile(r"^(?:([-+#]+)|(\d+)([.)]))(?=\s|$)")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render_html(page: Page, figures: Sequence[Figure]) -> str:
    """Returns the report as one HTML file that loads nothing."""
    environment = _environment()
    environment.finalize = _printable
    environment.filters["parts"] = _parts
    environment.filters["longest_part"] = lambda text: max(map(len, _parts(text)), default=0)
    # Markup that matplotlib wrote and `inline_svg` has parsed and written again.
    drawn = [(figure, Markup(inline_svg(figure))) for figure in figures]
    return environment.get_template("report.html").render(page=page, figures=drawn)


def render_markdown(page: Page, figures: Sequence[Figure]) -> str:
    """Returns the report in GitHub's Markdown; figures are files in `figures/`."""
    environment = _environment()
    environment.finalize = _escape_markdown
    environment.filters["fenced"] = _fenced
    text = environment.get_template("report.md").render(page=page, figures=figures)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _parts(text: str) -> list[str]:
    """Returns the parts of a name between which a line may break."""
    return [part for part in re.split(r"(?<=[_/:])|(?<=[.,-])(?!\d)", text) if part]


def _printable(value: object) -> object:
    """Escapes the unprintable characters of a text, except for the ends of its lines."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(printable(line.expandtabs(4)) for line in value.split("\n"))


def _escape_markdown(value: object) -> object:
    """Returns a text for one line of Markdown, in which no character has a meaning."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    if value == DASH:
        return Markup(value)
    text = printable(value.strip())
    text = _MARKDOWN.sub(r"\\\1", "".join(_HTML.get(letter, letter) for letter in text))
    return Markup(_MARKDOWN_START.sub(_escape_start, text))


def _escape_start(found: re.Match[str]) -> str:
    """Escapes what would begin a heading, a list or a line across the page."""
    signs, number, end = found.groups()
    return f"\\{signs}" if signs else f"{number}\\{end}"


def _fenced(text: str) -> Markup:
    """Returns a block of code, with a fence that is longer than any in it."""
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = [printable(line.expandtabs(4)) for line in text.strip("\n").split("\n")]
    return Markup("\n".join([fence, *lines, fence]))
