"""Writes the files of a report."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from moe_jax.compare.report import render
from moe_jax.compare.report.figures import Figure, draw_figures
from moe_jax.compare.report.page import Page, make_page
from moe_jax.compare.results import Comparison
from moe_jax.errors import UserError
from moe_jax.training.run_directory.atomic_file import write_atomically


@dataclasses.dataclass(frozen=True)
class ReportFiles:
    """The files of a report.

    Attributes:
        html: the report as one file, figures included.
        markdown: the report in Markdown, which refers to the figures.
        figures: the figures, as PNG and as SVG.
    """

    html: epath.Path
    markdown: epath.Path
    figures: tuple[epath.Path, ...]


def write_report(comparison: Comparison, directory: epath.Path) -> ReportFiles:
    """Writes the report on a comparison.

    The files depend on the comparison alone: two reports of equal records are equal byte for byte.

    Raises:
        UserError: if a file cannot be written.
    """
    return write_page(make_page(comparison), draw_figures(comparison), directory)


def write_page(page: Page, figures: Sequence[Figure], directory: epath.Path) -> ReportFiles:
    """Writes `report.html`, `report.md` and `figures/` into a directory.

    Raises:
        UserError: if a file cannot be written.
    """
    folder = directory / "figures"
    files = ReportFiles(
        html=directory / "report.html",
        markdown=directory / "report.md",
        figures=tuple(folder / f"{f.name}.{end}" for f in figures for end in ("png", "svg")),
    )
    texts = {
        files.markdown: render.render_markdown(page, figures),
        files.html: render.render_html(page, figures),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            (folder / f"{figure.name}.png").write_bytes(figure.png)
            write_atomically(folder / f"{figure.name}.svg", figure.svg)
        for path, text in texts.items():
            write_atomically(path, text)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}") from None
    return files
