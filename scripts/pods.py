#!/usr/bin/env python3
"""Compiles the 8B/64E model for pods and writes the tables of docs/results/pods.md.

    python scripts/pods.py                     everything, about an hour on two cores
    python scripts/pods.py --only=levers       one of levers, quick, models (with code: the longest)
    python scripts/pods.py --pods=v4:8x8x8     one of the pods, the others' figures as they are
    python scripts/pods.py --missing           configurations without figures, or with an error

Needs `pip install 'moe_jax[tpu]'`. Only the text between the page's markers is replaced. The
figures of every row are kept in docs/results/pods.json.
"""

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.errors import UserError
from moe_jax.pods.compiler import CompileJob
from moe_jax.pods.markdown import markdown_table
from moe_jax.pods.sweep import compile_and_report

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
# Bindings that each lever adds to the ones before; the first row is the naive configuration.
LEVERS = [
    ("full rematerialisation, weights over all chips, one pool for the whole batch", []),
    ("a pool for each chip's tokens", ["Pool.rows = {rows}"]),
    ("the mesh that --sweep found", ["{expert}", "{rules}"]),
    ("keep what costs a product to make again", ["{remat}", "{names}"]),
    ("collectives beside computation", ["{options}"]),
]
# Gin files and bindings. Adaptive gating sends 40 rows on average from one chip to another on 512:
# its buffers need room for twice as many to take one round.
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


def mesh_bindings(mesh_file: str) -> dict[str, str]:
    """Returns the bindings of a mesh file by name, multi-line values joined."""
    text = (ROOT / "moe_jax" / "configs" / mesh_file).read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = re.findall(r"^([\w.]+) = ((?:\{[^}]*\}|\([^)]*\)|[^\n]*))", text, re.MULTILINE)
    return {name: f"{name} = {' '.join(value.split())}" for name, value in found}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One configuration to compile.

    Attributes:
        table: name of its table.
        pod: name of the slice.
        what: label of its row.
        files: gin files.
        bindings: gin bindings that override the files.
        full: whether to generate code.
    """

    table: str
    pod: str
    what: str
    files: list[str]
    bindings: list[str]
    full: bool = False

    @property
    def key(self) -> str:
        """Name within the table."""
        return f"{self.pod}, {self.what}"

    def compile(self) -> dict[str, Any]:
        """Returns the report of the configuration, or its error."""
        try:
            job = CompileJob(
                parse_topology(self.pod), ConfigSource(self.files, self.bindings), full=self.full
            )
            figures = compile_and_report(job).as_dict(TOKENS)
        except UserError as error:
            figures = {"error": str(error)}
        if self.table != "quick":
            # The parts of the memory are kept once; code generation does not change them.
            figures = {name: value for name, value in figures.items() if name not in MEMORY_PARTS}
        return {"files": self.files, "bindings": self.bindings, **figures}


def levers() -> Iterator[Configuration]:
    """Yields configurations with one more lever each."""
    for pod, mesh in PODS.items():
        bound = mesh_bindings(mesh)
        values = {
            "expert": bound["Mesh.expert"],
            "rules": bound["Mesh.rules"],
            "rows": bound["Pool.rows"].split(" = ")[1],
            "remat": bound["Model.remat"],
            "names": bound["Model.remat_names"],
            "options": bound["Train.compiler_options"],
        }
        bindings: list[str] = []
        for what, added in LEVERS:
            bindings += [each.format(**values) for each in added]
            files = [*BASE, "mesh/pod_64_experts.gin"]
            yield Configuration("levers", pod, what, files, list(bindings))


def compared(table_name: str, is_full: bool) -> Iterator[Configuration]:
    """Yields routers and the dense model with the pods' mesh files."""
    for pod, mesh in PODS.items():
        for what, (files, bindings) in MODELS.items():
            yield Configuration(table_name, pod, what, [BASE[0], *files, mesh], bindings, is_full)


def quick() -> Iterator[Configuration]:
    """Yields configurations to compile without code generation."""
    return compared("quick", False)


def models() -> Iterator[Configuration]:
    """Yields configurations to compile with code generation."""
    return compared("models", True)


def row(pod: str, what: str, figures: dict[str, Any]) -> tuple[str, ...]:
    """Returns a row of a table."""
    if "error" in figures:
        return pod, what, figures["error"][:160], "", "", "", "", ""
    if not figures["fits"]:
        return pod, what, "no", f"{figures['hbm_gib']:.1f}", "-", "-", "-", "-"
    return (
        pod,
        what,
        "yes" if figures["fits"] else "no",
        f"{figures['hbm_gib']:.1f}",
        f"{figures['step_seconds'] * 1e3:,.0f} .. {figures['step_seconds_high'] * 1e3:,.0f}",
        f"{figures['mfu']:.3f} .. {figures['mfu_low']:.3f}",
        f"{figures['seconds']['collectives'] * 1e3:,.0f}",
        f"{figures['tokens_per_second_per_chip']:,.0f}",
    )


def roofline(figures: dict[str, Any]) -> str:
    """Returns the table of the step time by category, from the figures of `models`."""
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
    return markdown_table(ROOFLINE, rows)


def agreement(figures: dict[str, Any]) -> str:
    """Returns the table that compares quick reports with those after code generation."""
    rows = []
    for configuration in models():
        known = [figures[name][configuration.key] for name in ("quick", "models")]
        if any("error" in each or not each["fits"] for each in known):
            continue
        seconds = [each["step_seconds"] for each in known]
        milliseconds = [f"{each * 1e3:,.0f}" for each in seconds]
        gib = [f"{each['hbm_gib']:.2f}" for each in known]
        longer = f"{seconds[1] / seconds[0] - 1:+.1%}"
        rows.append((configuration.pod, configuration.what, *gib, *milliseconds, longer))
    return markdown_table(AGREEMENT, rows)


TABLES: dict[str, Callable[[], Iterator[Configuration]]] = {
    "levers": levers,
    "quick": quick,
    "models": models,
}


def write(name: str, text: str) -> None:
    """Replaces the text between a pair of the page's markers."""
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
        for configuration in make():
            key, pod = configuration.key, configuration.pod
            is_known = arguments.missing and "error" not in known.get(key, {"error": ""})
            if name in tables and pod in pods and not is_known:
                known[key] = configuration.compile()
                print(" | ".join(row(pod, configuration.what, known[key])), flush=True)
                FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        if name != "quick":
            rows = [row(q.pod, q.what, known[q.key]) for q in make() if q.key in known]
            write(name, markdown_table(COLUMNS, rows))
    write("roofline", roofline(figures))
    write("agreement", agreement(figures))


if __name__ == "__main__":
    main()
