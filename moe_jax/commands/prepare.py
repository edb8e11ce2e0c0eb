"""`moe-jax data prepare`: a data set's original files to a TFDS directory, with no network."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moe_jax.commands.quiet import quiet
from moe_jax.data.prepare.dataset_lookup import find_dataset_spec
from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.file_layout import check_folder
from moe_jax.data.prepare.prepare_dataset import prepare_dataset
from moe_jax.data.prepare.report import PreparedDataset
from moe_jax.errors import UserError
from moe_jax.waiting import waiting


def prepare(
    name: str,
    source: str,
    data_dir: str,
    console: Console,
    force: bool = False,
    debug: bool = False,
) -> dict[str, Any]:
    """Prepares a data set, prints what is in it, and returns the same.

    Args:
        name: of the data set, such as glue_sst2, or KIND:NAME for the user's own.
        source: the folder with the original files, or one above it.
        data_dir: the TFDS data directory to write into.
        console: to print to.
        force: replace the data set if it is there.
        debug: show what the libraries print.

    Raises:
        UserError: for an unknown name, files that are missing or malformed, or a data set that is
            there already.
    """
    data_set = find_dataset_spec(name)
    folder = check_folder(source)
    if "://" in data_dir:
        raise UserError(f"--data_dir={data_dir}: prepare locally, then copy the directory there")
    target = Path(data_dir).expanduser()
    with waiting(f"preparing {data_set.title}"), quiet(debug):
        prepared = prepare_dataset(data_set, folder, target, force)
    _print(console, data_set, prepared)
    for line in prepared.notes:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nIn {prepared.directory}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nNext:", style="bold")
    with waiting("looking for its tasks"), quiet(debug):
        from moe_jax.data.tasks.catalog import tasks_of_dataset

        tasks = tasks_of_dataset(data_set.title) or [f"tfds:{data_set.title}:{data_set.version}"]
    for task in tasks:
        line = f"moe-jax data show {task} --gin.Data.tfds_data_dir={shlex.quote(str(target))}"
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return {
        "name": f"{data_set.title}:{data_set.version}",
        "directory": str(prepared.directory),
        "splits": {
            split: {
                "rows": written.rows,
                "published": written.published,
                "labels": written.labels,
                "malformed": sum(file.malformed for file in written.files),
                "files": [str(file.path) for file in written.files],
            }
            for split, written in prepared.splits.items()
        },
        "notes": prepared.notes,
    }


def _print(console: Console, data_set: DatasetSpec, prepared: PreparedDataset) -> None:
    table = Table(
        *("split", "rows", "published", "labels", "from"),
        title=f"{data_set.title}:{data_set.version}",
    )
    for name, split in prepared.splits.items():
        labels = ", ".join(f"{label} {count:,}" for label, count in split.labels.items())
        files = [file.path.name for file in split.files]
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        published = "" if split.published is None else f"{split.published:,}"
        table.add_row(name, f"{split.rows:,}", published, labels, escape(files[0]) + more)
    console.print(table)
