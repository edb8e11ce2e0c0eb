"""`moe-jax config check | show | list`."""

import math
from typing import Any

from rich.table import Table

from moe_jax import config, experiment
from moe_jax.commands import dry_run
from moe_jax.commands.console import make_console
from moe_jax.commands.start import mesh_line
from moe_jax.errors import UserError, combined
from moe_jax.sharding.partition import make_partition


def list_files() -> dict[str, Any]:
    """Prints the gin files in the package and the first comment line of each."""
    console = make_console()
    table = Table("gin file", "what it is")
    for name in config.shipped():
        first = (config.config_root() / name).read_text().splitlines()[0]
        table.add_row(name, first.removeprefix("#").strip())
    console.print(table)
    console.print(f"They are in {config.config_root()}", highlight=False, soft_wrap=True)
    return {"files": config.shipped()}


def check(files: list[str], bindings: list[str], search_paths: list[str]) -> dict[str, Any]:
    """Checks a configuration, or each of the package's runs if none is named.

    Raises:
        UserError: for all mistakes, one in a line.
    """
    console = make_console()
    groups = [files] if files else [[f] for f in config.shipped() if f.startswith("runs/")]
    wrong: list[str] = []
    for group in groups:
        name = ", ".join(group)
        try:
            found = dry_run.mistakes(experiment.load(group, bindings, search_paths))
        except UserError as error:
            found = str(error).splitlines()
        if found:
            wrong += [f"{name}: {line}" for line in found]
            continue
        console.print(f"ok  {name}", markup=False, highlight=False, soft_wrap=True)
        for unused in config.unused():
            line = f"    not used in this configuration: {unused}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if wrong:
        raise combined(wrong)
    return {"checked": groups}


def show(files: list[str], bindings: list[str], search_paths: list[str]) -> dict[str, Any]:
    """Prints the configuration with everything resolved, and what it counts up to."""
    described = experiment.load(files, bindings, search_paths)
    console = make_console()
    console.print(config.operative(), markup=False, highlight=False, soft_wrap=True)
    counts = described.parameters()
    tokens = described.data.batch_size * described.data.sequence_length
    flops = described.train_flops_per_token()
    console.print(
        f"# {counts.total:,} parameters, {counts.active:,} active a token\n"
        f"# {tokens:,} tokens and {flops * tokens:.3g} FLOPs a step "
        f"({flops:.3g} a token; counting rule: moe_jax/flops.py)",
        highlight=False,
        soft_wrap=True,
    )
    return {
        "config": config.operative(),
        "parameters": counts.total,
        "active_parameters": counts.active,
        "tokens_per_step": tokens,
        "train_flops_per_token": flops,
    }


def show_sharding(files: list[str], bindings: list[str], search_paths: list[str]) -> dict[str, Any]:
    """Prints how every parameter is cut along the mesh, allocating nothing.

    Raises:
        UserError: if the mesh does not fit the devices, or a parameter not the mesh.
    """
    described = experiment.load(files, bindings, search_paths)
    partition = make_partition(described.mesh)
    model = described.language_model()
    shapes = model.abstract().params
    console = make_console()
    console.print("bytes a device, parameter, its axes: name size / mesh axis it is cut along")
    rows: list[dict[str, Any]] = []
    for name, axes in model.logical_axes().items():
        leaf = shapes[name]
        partition.check(name, axes, leaf.shape)
        along = []
        for entry in partition.stored(axes):
            entries = entry if isinstance(entry, tuple) else (entry,)
            along.append([a for a in entries if a is not None and partition.size(a) > 1])
        parts = math.prod(partition.size(axis) for group in along for axis in group)
        size = leaf.size * leaf.dtype.itemsize // parts
        rows.append(
            {
                "name": name,
                "shape": list(leaf.shape),
                "axes": list(axes),
                "stored": along,
                "bytes_per_device": size,
            }
        )
        described_axes = ", ".join(
            f"{axis} {length}" + (f" / {' x '.join(group)}" if group else "")
            for axis, length, group in zip(axes, leaf.shape, along, strict=True)
        )
        console.print(f"{size:>16,}  {name}  {described_axes}", highlight=False, soft_wrap=True)
    total = sum(row["bytes_per_device"] for row in rows)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in shapes.values())
    console.print(
        f"Mesh: {mesh_line(partition)}\n{total:,} bytes of parameters a device, {whole:,} in all",
        highlight=False,
        soft_wrap=True,
    )
    return {
        "mesh": dict(partition.mesh.shape),
        "parameters": rows,
        "bytes_per_device": total,
        "bytes": whole,
    }
