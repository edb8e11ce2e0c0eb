"""The report on a fine-tuning study: HTML, Markdown, a figure, and lines for the terminal."""

from etils import epath

from moe_jax.compare.report.console import aligned
from moe_jax.compare.report.write import ReportFiles, write_page
from moe_jax.compare.results_file import RESULTS_FILE, read_records, write_records
from moe_jax.compare.study_directory import absolute, holds_study
from moe_jax.errors import UserError
from moe_jax.finetuning import score_figure
from moe_jax.finetuning.page import answer, make_page, scores_table, warnings
from moe_jax.finetuning.results import FinetuningResults, summarise
from moe_jax.formatting import printable
from moe_jax.waiting import waiting


def make_report(path: str, directory: epath.Path) -> tuple[FinetuningResults, ReportFiles]:
    """Writes the report on the records of a study.

    Unless the directory holds a study, the records are written beside the report, so that it can
    be made again without the runs.

    Args:
        path: the directory of a study, or its file of results.
        directory: where the report is written.

    Raises:
        UserError: if the records cannot be read, or are not those of a fine-tuning study.
    """
    place = epath.Path(path).expanduser()
    file = place / RESULTS_FILE if place.is_dir() else place
    if not file.exists():
        raise UserError(f"there are no results of a fine-tuning study in {path}")
    records = read_records(file)
    results = summarise(records)
    with waiting("writing the report"):
        if not holds_study(directory) and absolute(str(file)) != directory / RESULTS_FILE:
            directory.mkdir(parents=True, exist_ok=True)
            write_records(directory / RESULTS_FILE, records)
        drawn = score_figure.draw(results)
        figures = () if drawn is None else (drawn,)
        return results, write_page(make_page(results), figures, directory)


def summary_lines(results: FinetuningResults, files: ReportFiles) -> list[str]:
    """Returns the answer, the warnings, the table of scores and the paths as lines."""
    lines = [answer(results), *(f"warning: {line}" for line in warnings(results)), ""]
    table = scores_table(results)
    rows = [list(table.columns)]
    for cells in table.rows:
        head, *values = cells
        texts = [
            f"{value.text} {value.note}" if value.note.startswith("[") else value.text
            for value in values
        ]
        rows.append([head.text, *texts])
    lines += aligned(rows)
    lines += ["", f"report: {files.html}", f"        {files.markdown}"]
    return [printable(line) for line in lines]
