"""Writes the table of routers in docs/guides/routers.md from the registered routers.

    python scripts/router_table.py            writes it
    python scripts/router_table.py --check    fails if the page is not what would be written

The column of costs comes from docs/results/routing.json, which
`moe-jax bench routing --size=M --rounds=5 --json` prints on its last line.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from page_table import write_or_check

from moe_jax.routers import ROUTERS, get_router
from moe_jax.routing.pools import KINDS, Pool
from moe_jax.routing.router import Description, Router

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guides" / "routers.md"
COSTS = ROOT / "docs" / "results" / "routing.json"
BEGIN, END = "<!-- routers: begin -->", "<!-- routers: end -->"
# The fields that make up a router's defaults, in the order of the table.
DEFAULTS = (
    ("capacity_factor", "c"),
    ("k", "k"),
    ("cap", "b"),
    ("threshold", "T"),
    ("jitter", "jitter"),
    ("threshold_decay", "decay"),
    ("warmup_steps", "warm-up"),
    ("regularisation", "λ"),
    ("method", "method"),
    ("drawn_per", "drawn per"),
)


def defaults(router: Router) -> str:
    """Returns the default settings that distinguish routers."""
    values = [
        f"{label} = {getattr(router, field)}"
        for field, label in DEFAULTS
        if getattr(router, field, None) not in (None, 0, 0.0)
    ]
    return ", ".join([*values, f"{router.pool.kind} pool"])


def slots(router: Router) -> float:
    """Returns the slots per token that a static layout computes."""
    limited = getattr(router, "capacity_factor", None) and hasattr(router, "k")
    return router.experts_per_token * (router.capacity_factor if limited else 1.0)


def causal(router: Router) -> str:
    """Returns in which pools the router is causal."""
    kinds = [kind for kind in KINDS if dataclasses.replace(router, pool=Pool(kind)).is_causal]
    if len(kinds) == len(KINDS):
        return "yes"
    return f"{' and '.join(kinds)} pools only" if kinds else "no"


def drops(router: Router) -> str:
    """Returns whether tokens can be left without an expert that they wanted."""
    if getattr(router, "order", None) and router.capacity_factor is not None:
        return "beyond its slots"
    if "expert_" in router.name:
        return "tokens may have no expert"
    return "never"


def cost(name: str, rows: list[dict]) -> str:
    """Returns the measured layer time relative to a dense layer of the same active FLOPs."""
    ratios = {row["dispatch"]: row["ratio_to_dense"] for row in rows if row["router"] == name}
    return ", ".join(f"{ratio:.2f} {dispatch}" for dispatch, ratio in ratios.items()) or "-"


def table() -> str:
    """Returns the table in Markdown."""
    rows = json.loads(COSTS.read_text())["rows"] if COSTS.exists() else []
    header = (
        "router",
        "rule",
        "source",
        "defaults",
        "experts (FLOPs) a token",
        "slots a token",
        "causal",
        "balanced",
        "drops",
        "cost here, of dense",
    )
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name in ROUTERS:
        router = get_router(name)
        description = router.description or Description("-")
        up_to = "up to " if name == "adaptive" else ""
        cells = (
            f"`{name}`",
            description.rule,
            description.source,
            defaults(router),
            f"{up_to}{router.experts_per_token:g}",
            f"{up_to}{slots(router):g}",
            causal(router),
            description.balanced,
            drops(router),
            cost(name, rows),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    return write_or_check(PAGE, (BEGIN, END), table(), check)


if __name__ == "__main__":
    sys.exit(main())
