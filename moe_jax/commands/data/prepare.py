"""`moe-jax data prepare`: a TFDS directory from a data set's original files, offline."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moe_jax.commands.console import line_printer
from moe_jax.data.prepare.dataset_lookup import find_dataset_spec
from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.file_layout import check_folder
from moe_jax.data.prepare.prepare_dataset import prepare_dataset
from moe_jax.data.prepare.report import PreparedDataset
from moe_jax.errors import UserError
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


def prepare(
    name: str,
    source: str,
    data_dir: str,
    console: Console,
    force: bool = False,
    debug: bool = False,
) -> dict[str, Any]:
    """Prepares a data set, and prints and returns its contents.

    Args:
        name: the data set, such as glue_sst2, or KIND:NAME for the user's own.
        source: the folder with the original files, or one above it.
        data_dir: the TFDS data directory to write into.
        console: the console to print to.
        force: replace the data set if it exists.
        debug: show the output of libraries.

    Raises:
        UserError: for an unknown name, files that are missing or malformed, or a data set that
            exists already.
    """
    data_set = find_dataset_spec(name)
    folder = check_folder(source)
    if "://" in data_dir:
        raise UserError(f"--data_dir={data_dir}: prepare locally, then copy the directory there")
    target = Path(data_dir).expanduser()
    with waiting(f"preparing {data_set.title}"), suppress_library_output(debug):
        prepared = prepare_dataset(data_set, folder, target, force)
    say = line_printer(console)
    _print(console, data_set, prepared)
    for line in prepared.notes:
        say(f"  {line}")
    say(f"\nIn {prepared.directory}")
    console.print("\nNext:", style="bold")
    with waiting("looking for its tasks"), suppress_library_output(debug):
        from moe_jax.data.tasks.catalog import tasks_of_dataset

        tasks = tasks_of_dataset(data_set.title) or [f"tfds:{data_set.title}:{data_set.version}"]
    for task in tasks:
        say(f"  moe-jax data show {task} --gin.Data.tfds_data_dir={shlex.quote(str(target))}")
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
