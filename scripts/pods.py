#!/usr/bin/env python3
"""Asks the TPU compiler about the 8B/64E model on pods and writes docs/results/pods.md's tables.

    python scripts/pods.py                     everything, about an hour on two cores
    python scripts/pods.py --only=levers       one of levers, quick, models (with code: the longest)
    python scripts/pods.py --pods=v4:8x8x8     one of the pods, the others' figures as they are
    python scripts/pods.py --missing           what has no figures yet, or an error

Needs `pip install 'moe_jax[tpu]'`. Only what is between the page's markers is replaced. The figures
of every row are kept in docs/results/pods.json.
"""

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moe_jax.errors import UserError
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
AGREEMENT = (
    "chips",
    "what",
    "GiB, quick",
    "GiB, with code",
    "ms, quick",
    "ms, with code",
    "with code longer by",
)
MEMORY_PARTS = ("memory_bytes", "largest")
TOKENS = 1e12
COLUMNS = ("chips", "what", "fits", "GiB", "step ms", "MFU", "exposed ms", "tokens/s a chip")


def lines_of(mesh_file: str) -> dict[str, str]:
    """Returns the bindings of a mesh file, the values of several lines joined."""
    text = (ROOT / "moe_jax" / "configs" / mesh_file).read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = re.findall(r"^([\w.]+) = ((?:\{[^}]*\}|\([^)]*\)|[^\n]*))", text, re.MULTILINE)
    return {name: f"{name} = {' '.join(value.split())}" for name, value in found}


@dataclasses.dataclass(frozen=True)
class Question:
    """One configuration for the compiler.

    Attributes:
        table: that it is in.
        pod: chips.
        what: is special about it.
        files: gin files.
        bindings: values over them.
        full: with code.
    """

    table: str
    pod: str
    what: str
    files: list[str]
    bindings: list[str]
    full: bool = False

    @property
    def key(self) -> str:
        """Its name within the table."""
        return f"{self.pod}, {self.what}"

    def ask(self) -> dict[str, Any]:
        """Compiles it."""
        try:
            job = Job(parse(self.pod), self.files, self.bindings, full=self.full)
            known = answer(job).as_dict(TOKENS)
        except UserError as error:
            known = {"error": str(error)}
        if self.table != "quick":
            # What the memory is made of is kept once; code changes nothing of it.
            known = {name: value for name, value in known.items() if name not in MEMORY_PARTS}
        return {"files": self.files, "bindings": self.bindings, **known}


def levers() -> Iterator[Question]:
    """Adds one lever after the other."""
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
            yield Question("levers", pod, what, files, list(bindings))


def compared(table_name: str, is_full: bool) -> Iterator[Question]:
    """Compares routers and the dense model on the pods' files."""
    for pod, mesh in PODS.items():
        for what, (files, bindings) in MODELS.items():
            yield Question(table_name, pod, what, [BASE[0], *files, mesh], bindings, is_full)


def quick() -> Iterator[Question]:
    """Ends the compiler before code generation."""
    return compared("quick", False)


def models() -> Iterator[Question]:
    """Generates code."""
    return compared("models", True)


def row(pod: str, what: str, known: dict[str, Any]) -> tuple[str, ...]:
    """Returns a row of a table."""
    if "error" in known:
        return pod, what, known["error"][:160], "", "", "", "", ""
    if not known["fits"]:
        return pod, what, "no", f"{known['hbm_gib']:.1f}", "-", "-", "-", "-"
    return (
        pod,
        what,
        "yes" if known["fits"] else "no",
        f"{known['hbm_gib']:.1f}",
        f"{known['step_seconds'] * 1e3:,.0f} .. {known['step_seconds_high'] * 1e3:,.0f}",
        f"{known['mfu']:.3f} .. {known['mfu_low']:.3f}",
        f"{known['seconds']['collectives'] * 1e3:,.0f}",
        f"{known['tokens_per_second_per_chip']:,.0f}",
    )


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


def agreement(figures: dict[str, Any]) -> str:
    """Returns the table of quick answers beside those with code."""
    rows = []
    for question in models():
        known = [figures[name][question.key] for name in ("quick", "models")]
        if any("error" in each or not each["fits"] for each in known):
            continue
        seconds = [each["step_seconds"] for each in known]
        milliseconds = [f"{each * 1e3:,.0f}" for each in seconds]
        gib = [f"{each['hbm_gib']:.2f}" for each in known]
        longer = f"{seconds[1] / seconds[0] - 1:+.1%}"
        rows.append((question.pod, question.what, *gib, *milliseconds, longer))
    return table(AGREEMENT, rows)


TABLES: dict[str, Callable[[], Iterator[Question]]] = {
    "levers": levers,
    "quick": quick,
    "models": models,
}


def write(name: str, text: str) -> None:
    """Replaces what is between a pair of the page's markers."""
    before, begin, rest = PAGE.read_text().partition(f"<!-- {name}: begin -->")
    _, end, after = rest.partition(f"<!-- {name}: end -->")
    assert end, f"{PAGE} has no markers {name}"
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(TABLES), metavar="A,B")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--pods", default=",".join(PODS), metavar="A,B")
    arguments = parser.parse_args()
    tables, pods = arguments.only.split(","), arguments.pods.split(",")
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name, make in TABLES.items():
        known = figures.setdefault(name, {})
        for question in make():
            is_known = arguments.missing and "error" not in known.get(question.key, {"error": ""})
            if name in tables and question.pod in pods and not is_known:
                known[question.key] = question.ask()
                print(" | ".join(row(question.pod, question.what, known[question.key])), flush=True)
                FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        if name != "quick":
            rows = [row(q.pod, q.what, known[q.key]) for q in make() if q.key in known]
            write(name, table(COLUMNS, rows))
    write("roofline", roofline(figures))
    write("agreement", agreement(figures))


if __name__ == "__main__":
    main()
