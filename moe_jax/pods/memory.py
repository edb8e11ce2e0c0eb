"""How much of a chip's memory a step takes, and what for, from the compiler's buffers."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping

# The scopes that the model names its parts with, the inner before the outer.
_SCOPES = (
    "router",
    "dispatch",
    "shared_experts",
    "experts",
    "moe",
    "attention",
    "feed_forward",
    "vocabulary_loss",
    "final_norm",
    "embed",
    "optimizer",
)
_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (.*):$")
_LEAF = re.compile(r"[├└]── (.*) \([\d.]+%, total: [\d ]+ bytes, current: ([\d ]+) bytes")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a chip.

    Attributes:
        total: the program's buffers in HBM: arguments, results and the heap of temporaries.
        arguments: parameters, router state, optimiser state and batch, without padding.
        heap: the heap of temporaries.
        at_peak: what is in the heap when it is fullest, by the part of the step that made it.
    """

    total: int
    arguments: Mapping[str, int]
    heap: int
    at_peak: Mapping[str, int]

    def largest(self, count: int) -> list[tuple[str, int]]:
        """Returns the largest consumers and their bytes."""
        found = {**self.arguments, **{f"{k} (temporary)": v for k, v in self.at_peak.items()}}
        return sorted(found.items(), key=lambda item: -item[1])[:count]


def read_memory(buffers: str, live: str, arguments: Mapping[str, int]) -> Memory:
    """Reads the compiler's texts of its buffer assignment and live ranges.

    Args:
        buffers: the assignment; counted are the buffers in HBM that are not local to a thread.
        live: the live ranges, which list what is there at the peak.
        arguments: bytes a chip of the step's arguments by what they hold.

    Raises:
        ValueError: if it is no such text.
    """
    sizes: Counter[str] = Counter()
    for line in buffers.splitlines():
        found = _ALLOCATION.match(line)
        # Those with a colour are in another memory.
        if found and "thread-local" not in found[2] and "color" not in found[2]:
            sizes["heap" if "preallocated-temp" in found[2] else "rest"] += int(found[1])
    if not sizes:
        raise ValueError("the compiler's buffer assignment has no allocation in HBM")
    at_peak: Counter[str] = Counter()
    for name, size in _peak(live):
        part = _part(name)
        if part is not None:
            at_peak[part] += size
    return Memory(sum(sizes.values()), dict(arguments), sizes["heap"], dict(at_peak.most_common()))


def _peak(live: str) -> Iterator[tuple[str, int]]:
    """Yields the names and bytes of what is alive at the peak."""
    _, _, breakdown = live.partition("Stack trace breakdown for peak usage:")
    for line in breakdown.splitlines():
        found = _LEAF.search(line)
        if found and (size := int(found[2].replace(" ", ""))):
            yield found[1], size


def _part(name: str) -> str | None:
    """Returns the part of the step that made a buffer; None for the step's arguments."""
    if name.startswith(("state.", "batch.")):
        return None
    words = re.split(r"[/()]", name)
    for scope in _SCOPES:
        if scope in words:
            return scope.replace("_", " ")
    if "dynamic_update_slice" in name:
        # Results of every layer, stacked: kept for the backward pass, or gradients.
        return "stacked over the layers"
    return "the rest"
