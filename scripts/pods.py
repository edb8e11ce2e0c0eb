#!/usr/bin/env python3
"""Asks the TPU compiler about the 8B/64E model on pods and writes docs/results/pods.md's tables.

    python scripts/pods.py                     everything, about half an hour on two cores
    python scripts/pods.py --only=levers       one of the tables: levers, models, full

Needs `pip install 'moe_jax[tpu]'`. Only what is between the page's markers is replaced. The figures
of every row are kept in docs/results/pods.json.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from moe_jax.errors import UserError
from moe_jax.pods.answer import GIB, Answer
from moe_jax.pods.compiler import Job
from moe_jax.pods.page import table
from moe_jax.pods.sweep import answer
from moe_jax.pods.topologies import parse

ROOT = Path(__file__).resolve().parent.parent
PAGE, FIGURES = ROOT / "docs" / "results" / "pods.md", ROOT / "docs" / "results" / "pods.json"
BASE = ["runs/pretrain.gin", "models/8b_64e.gin", "routers/expert_choice.gin"]
PODS = {
    "v4:8x8x8": "mesh/v4_512_64_experts.gin",
    "v5p:8x8x8": "mesh/v5p_512_64_experts.gin",
    "v5p:4x8x8": "mesh/v5p_256_64_experts.gin",
    "v5e:16x16": "mesh/v5e_256_64_experts.gin",
    "v6e:16x16": "mesh/v6e_256_64_experts.gin",
}
# What each lever adds to the ones before: the first row is what one would write first.
LEVERS = [
    ("full rematerialisation, weights over all chips, one pool for the whole batch", []),
    ("a pool for each chip's tokens", ["Pool.rows = {rows}"]),
    ("the mesh that --sweep found", ["{expert}", "{rules}"]),
    ("keep what costs a product to make again", ["{remat}", "{names}"]),
    ("collectives beside computation", ["{options}"]),
]
# Gin files and bindings. Adaptive gating sends 40 rows in the mean from one chip to another on 512:
# its buffers need room for twice as many to take one turn.
MODELS: dict[str, tuple[tuple[str, str], list[str]]] = {
    "expert choice, 2 experts a token": (("models/8b_64e.gin", "routers/expert_choice.gin"), []),
    "Switch, top 1": (("models/8b_64e.gin", "routers/switch.gin"), []),
    "GShard, top 2": (("models/8b_64e.gin", "routers/gshard_top2.gin"), []),
    "adaptive, 1.25 experts a token": (
        ("models/8b_64e.gin", "routers/adaptive.gin"),
        ["Adaptive.expected_experts = 1.25", "Mesh.buffer_factor = 2.0"],
    ),
    "dense 8B": (("models/8b_dense.gin", "routers/expert_choice.gin"), []),
}
EXPERT_CHOICE = next(iter(MODELS))
ROOFLINE = (
    "chips",
    "model FLOPs at the peak",
    "computed again",
    "products below the peak",
    "other instructions",
    "copies",
    "waiting for collectives",
    "step",
)
COLUMNS = ("chips", "what", "fits", "GiB", "step ms", "MFU", "exposed ms", "tokens/s a chip")


def lines_of(mesh_file: str) -> dict[str, str]:
    """Returns the bindings of a mesh file, the values of several lines joined."""
    text = (ROOT / "moe_jax" / "configs" / mesh_file).read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = re.findall(r"^([\w.]+) = ((?:\{[^}]*\}|\([^)]*\)|[^\n]*))", text, re.MULTILINE)
    return {name: f"{name} = {' '.join(value.split())}" for name, value in found}


def row(pod: str, what: str, found: Answer | str) -> tuple[str, ...]:
    """Returns a row of a table."""
    if isinstance(found, str):
        return pod, what, found[:160], "", "", "", "", ""
    fast, slow = found.fastest, found.slowest
    return (
        pod,
        what,
        "yes" if found.fits else "no",
        f"{found.memory.total / GIB:.1f}",
        f"{fast.seconds * 1e3:,.0f} .. {slow.seconds * 1e3:,.0f}",
        f"{found.utilisation(fast):.3f} .. {found.utilisation(slow):.3f}",
        f"{sum(fast.exposed.values()) * 1e3:,.0f}",
        f"{found.tokens_per_second_per_chip:,.0f}",
    )


class Asked:
    """Answers, kept by name."""

    def __init__(self, figures: dict[str, Any]):
        self.figures = figures

    def __call__(
        self,
        name: str,
        pod: str,
        what: str,
        files: list[str],
        bindings: list[str],
        full: bool,
    ) -> tuple[str, ...]:
        """Compiles one configuration and returns its row."""
        job = Job(parse(pod), files, bindings, full=full)
        try:
            found: Answer | str = answer(job)
        except UserError as error:
            found = str(error)
        cells = row(pod, what, found)
        print(" | ".join(cells), flush=True)
        known = found.as_dict(1e12) if isinstance(found, Answer) else {"error": found}
        self.figures.setdefault(name, {})[f"{pod}, {what}"] = {
            "files": files,
            "bindings": bindings,
            **known,
        }
        return cells


def levers(ask: Asked) -> list[tuple[str, ...]]:
    """Adds one lever after the other."""
    rows = []
    for pod, mesh in PODS.items():
        given = lines_of(mesh)
        values = {
            "expert": given["Mesh.expert"],
            "rules": given["Mesh.rules"],
            "rows": given["Pool.rows"].split(" = ")[1],
            "remat": given["Model.remat"],
            "names": given["Model.remat_names"],
            "options": given["Train.compiler_options"],
        }
        bindings: list[str] = []
        for what, added in LEVERS:
            bindings += [each.format(**values) for each in added]
            files = [*BASE, "mesh/pod_64_experts.gin"]
            rows.append(ask("levers", pod, what, files, list(bindings), False))
    return rows


def models(ask: Asked) -> list[tuple[str, ...]]:
    """Compares routers and the dense model on the pods' files."""
    rows = []
    for pod, mesh in PODS.items():
        for what, (files, bindings) in MODELS.items():
            rows.append(ask("models", pod, what, [BASE[0], *files, mesh], bindings, False))
    return rows


def roofline(figures: dict[str, Any]) -> str:
    """Returns the table of where a step's time goes, from the figures of `models`."""
    rows = []
    for pod in PODS:
        known = figures["models"][f"{pod}, {EXPERT_CHOICE}"]
        step, parts = known["step_seconds"], known["seconds"]
        ideal = known["mfu"] * step
        whole = ideal * known["flops"] / known["model_flops"]
        seconds = (
            ideal,
            whole - ideal,
            parts["products"] - whole,
            parts["other"],
            parts["copies"],
            parts["collectives"],
            step,
        )
        rows.append((pod, *(f"{each * 1e3:,.0f}" for each in seconds)))
    return table(ROOFLINE, rows)


def full(ask: Asked) -> list[tuple[str, ...]]:
    """Compares the quick answer with the one after the code is generated."""
    rows = []
    for pod, mesh in PODS.items():
        for is_full in (False, True):
            what = "with code" if is_full else "quick"
            rows.append(ask("full", pod, what, [*BASE, mesh], [], is_full))
    return rows


def write(name: str, text: str) -> None:
    """Replaces what is between a pair of the page's markers."""
    before, begin, rest = PAGE.read_text().partition(f"<!-- {name}: begin -->")
    _, end, after = rest.partition(f"<!-- {name}: end -->")
    assert end, f"{PAGE} has no markers {name}"
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="levers,models,full", metavar="A,B")
    wanted = parser.parse_args().only.split(",")
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    ask = Asked(figures)
    for name, make in (("levers", levers), ("models", models), ("full", full)):
        if name in wanted:
            figures.pop(name, None)
            write(name, table(COLUMNS, make(ask)))
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    write("roofline", roofline(figures))


if __name__ == "__main__":
    main()
