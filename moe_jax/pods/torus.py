"""How long a collective takes on a torus of chips: two ends of a bracket.

A group of n devices is a grid in the torus. Along dimension d it has m chips, s apart, so that s
groups share the links of a ring. With one-way bandwidth B of a link, both directions being used:

| kind                       | least: what the links allow      | one axis: as XLA's scheduler  |
|----------------------------|----------------------------------|-------------------------------|
| all-gather, reduce-scatter | bytes (n - 1) / n / sum_d 2 B / s | only the widest dimension     |
| all-reduce                 | one after the other: twice that  | the same                      |
| all-to-all                 | max_d bytes m s / (8 B)          | twice that                    |
| collective-permute         | bytes hops / B                   | the same                      |

The all-to-all is bound by the middle of a ring. A line instead of a ring has half the bandwidth.
Where a chip is two devices, they share its links: all that its groups move goes over them, but
what two devices of one group gather or reduce goes once. Links between slices are not priced. The
second column is how XLA's latency-hiding scheduler prices these. Neither was seen on hardware.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from moe_jax.pods.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Torus:
    """Chips and the links between them.

    Attributes:
        shape: chips along each dimension.
        wraps: whether each dimension is a ring.
        bandwidth: of a link, one way, bytes a second.
        coordinates: of the devices in the order of the program's partitions, [devices, dimensions].
        devices_per_chip: devices that share a chip and its links.
    """

    shape: tuple[int, ...]
    wraps: tuple[bool, ...]
    bandwidth: float
    coordinates: np.ndarray
    devices_per_chip: int = 1

    def lanes(self, group: Sequence[int]) -> list[tuple[int, float]]:
        """Returns, of every dimension that a group spans, its chips and its bytes a second.

        Args:
            group: partitions.
        """
        places = self.coordinates[list(group)]
        found = []
        for dimension, size in enumerate(self.shape):
            values = np.unique(places[:, dimension])
            if len(values) < 2:
                continue
            stride = int(np.diff(values).min())
            is_ring = self.wraps[dimension] and stride * len(values) == size and size > 2
            directions = 2 if is_ring else 1
            found.append((len(values), directions * self.bandwidth / stride))
        return found

    def seconds(self, kind: str, size: float, group: Sequence[int]) -> tuple[float, float]:
        """Returns the least seconds of a collective and those with one axis at a time.

        Args:
            kind: of collective, as in `collectives.KINDS`.
            size: payload bytes a device, by the definition of `collectives`.
            group: the partitions of one group; all groups run at once.
        """
        lanes = self.lanes(group)
        if not lanes:
            return 0.0, 0.0
        chips = len(np.unique(self.coordinates[list(group)], axis=0))
        together = min(self.devices_per_chip, len(group) // chips)  # Of a group on a chip.
        n = len(group) // together
        if kind in ("all-to-all", "ragged-all-to-all"):
            # Half of what each chip of a ring has crosses its middle, over two cuts of a ring.
            of_chip = size * self.devices_per_chip
            least = max(of_chip * length / (4 * speed) for length, speed in lanes)
            return least, 2 * least
        once = size * self.devices_per_chip / together * (n - 1) / n
        least = once / sum(speed for _, speed in lanes)
        if kind == "all-reduce":
            return 2 * least, 2 * least
        return least, once / max(speed for _, speed in lanes)

    def seconds_of(self, collective: Collective) -> tuple[float, float]:
        """Returns the seconds of one run of a collective, at both ends of the bracket."""
        size, members = collective.payload_bytes, collective.groups.members
        if collective.groups.pairs:
            pairs = [(int(source), int(target)) for source, target in members]
            return (self.permute_seconds(size, pairs),) * 2
        group = [int(device) for device in members[0] if device >= 0]
        return self.seconds(collective.kind, size, group)

    def permute_seconds(self, size: float, pairs: Sequence[tuple[int, int]]) -> float:
        """Returns the seconds of a collective-permute: its longest way, one link at a time."""
        longest, sent = 0, Counter[tuple[int, ...]]()
        for source, target in pairs:
            way = np.abs(self.coordinates[source] - self.coordinates[target])
            around = np.where(self.wraps, np.array(self.shape) - way, way)
            hops = int(np.minimum(way, around).sum())
            longest = max(longest, hops)
            sent[tuple(self.coordinates[source])] += hops > 0
        return size * longest * max(sent.values(), default=0) / self.bandwidth
