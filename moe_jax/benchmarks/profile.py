"""Time of a compiled function by the named scopes of its source.

The function runs under JAX's profiler. Every operation in the trace is an instruction of the
compiled program, whose metadata names the scopes (`jax.named_scope`) it came from; a fused
operation counts for the scope of its root. Time in which several operations run at once is shared
equally between them, so that the parts and the rest add up to the wall time.
"""

import glob
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence

import jax

_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', re.MULTILINE)
# Instructions that only contain others.
_CONTAINERS = ("while", "call", "conditional")


def scopes_of_instructions(hlo: str, scopes: Sequence[str]) -> dict[str, str]:
    """Maps each instruction of an optimised HLO text to the innermost known scope it came from.

    Args:
        hlo: `compiled.as_text()`.
        scopes: names to look for; an instruction of none of them maps to "other".
    """
    found = {}
    for name, op_name in _INSTRUCTION.findall(hlo):
        # Gradients keep the scope, wrapped: transpose(jvp(attention)).
        parts = re.split(r"[/()]", op_name)
        inside = [part for part in parts if part in scopes]
        found[name] = inside[-1] if inside else "other"
    return found


def time_by_scope(
    run: Callable[[], object], hlo: str, scopes: Sequence[str]
) -> tuple[dict[str, float], float]:
    """Runs a function once under the profiler.

    Args:
        run: runs the compiled function (any number of times) and waits for it.
        hlo: its optimised HLO text.
        scopes: names of the scopes.

    Returns:
        the seconds by scope, "other" included, and the seconds in which any operation ran.
    """
    scope_of = scopes_of_instructions(hlo, scopes)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            run()
        (path,) = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
        data = jax.profiler.ProfileData.from_file(path)
        events = [
            (event.start_ns, event.start_ns + event.duration_ns, scope_of[event.name])
            for plane in data.planes
            for line in plane.lines
            for event in line.events
            if event.name in scope_of and not event.name.startswith(_CONTAINERS)
        ]
    return _share(events)


def _share(events: list[tuple[float, float, str]]) -> tuple[dict[str, float], float]:
    """Shares each instant equally among the events that cover it."""
    edges = sorted(
        [(start, 1, scope) for start, _, scope in events]
        + [(end, -1, scope) for _, end, scope in events]
    )
    seconds: dict[str, float] = defaultdict(float)
    active: dict[str, int] = defaultdict(int)
    covered, previous = 0.0, 0.0
    for at, change, scope in edges:
        total = sum(active.values())
        if total:
            covered += (at - previous) * 1e-9
            for name, count in active.items():
                seconds[name] += (at - previous) * 1e-9 * count / total
        active[scope] += change
        previous = at
    return dict(seconds), covered
