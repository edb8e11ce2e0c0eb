"""Collectives on a torus: closed forms, and bytes counted link by link."""

import itertools
from collections import Counter

import numpy as np
import pytest

from moe_jax.cost_model.torus import Torus
from moe_jax.hlo.collectives import Collective
from moe_jax.hlo.replica_groups import parse_replica_groups, parse_source_target_pairs

SIZE, SPEED = 96_000.0, 50.0


def make(shape, wraps=True, devices_per_chip=1):
    wraps = (wraps,) * len(shape) if isinstance(wraps, bool) else wraps
    places = np.array(list(itertools.product(*map(range, shape))))
    return Torus(shape, wraps, SPEED, np.repeat(places, devices_per_chip, axis=0), devices_per_chip)


class Links:
    """Every link of a torus, one for each direction, and the bytes that went over it."""

    def __init__(self, torus):
        self.torus, self.bytes = torus, Counter()

    def hop(self, at, dimension, direction, size):
        """Sends bytes to the next chip; returns it."""
        length = self.torus.shape[dimension]
        to = at[dimension] + direction
        assert self.torus.wraps[dimension] or 0 <= to < length
        self.bytes[at, dimension, direction] += size
        return (*at[:dimension], to % length, *at[dimension + 1 :])

    def along(self, at, dimension, to, size, direction):
        while at[dimension] != to:
            at = self.hop(at, dimension, direction, size)
        return at

    def shortest(self, at, target, size):
        """Sends bytes one dimension after the other; the half of them each way if both are one."""
        for dimension, to in enumerate(target):
            length = self.torus.shape[dimension]
            forward = (to - at[dimension]) % length
            if not self.torus.wraps[dimension]:
                directions = [1 if to > at[dimension] else -1]
            elif 2 * forward == length:
                directions = [1, -1]
            else:
                directions = [1 if 2 * forward < length else -1]
            ends = {
                self.along(at, dimension, to, size / len(directions), way) for way in directions
            }
            (at,) = ends
        return at

    @property
    def seconds(self):
        return max(self.bytes.values()) / self.torus.bandwidth


def place(torus, device):
    return tuple(map(int, torus.coordinates[device]))


def all_to_all(torus, groups):
    """Every device has SIZE bytes, an equal part for each device of its group."""
    links = Links(torus)
    for group in groups:
        for source, target in itertools.permutations(group, 2):
            if place(torus, source) != place(torus, target):
                way = place(torus, source), place(torus, target)
                links.shortest(*way, SIZE / len(group))
    return links.seconds


def along(shape, dimension, step=1, length=None):
    """Returns groups along a dimension: chips `step` apart, `length` of them."""
    length = length or shape[dimension] // step
    numbers = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), dimension, -1)
    parts = numbers.reshape(-1, shape[dimension] // (step * length), length, step)
    return np.moveaxis(parts, -1, -2).reshape(-1, length).tolist()


ALL = "all"
CASES = [
    ((4,), True, ALL),
    ((8,), True, ALL),
    ((16,), True, ALL),
    ((2,), False, ALL),
    ((4,), False, ALL),
    ((8,), False, ALL),
    ((2, 2), False, ALL),
    ((4, 4), False, ALL),
    ((4, 4), True, ALL),
    ((4, 8), True, ALL),
    ((4, 8), (False, True), ALL),
    ((2, 4), False, ALL),
    ((4, 4, 4), True, ALL),
    ((2, 2, 4), False, ALL),
    # Along one dimension, every chip or those that are some chips apart.
    ((8, 4), True, (0, 1)),
    ((8, 4), True, (1, 1)),
    ((8,), True, (0, 2)),
    ((8,), True, (0, 4)),
    ((16,), True, (0, 4)),
    ((8,), False, (0, 2)),
    ((8,), False, (0, 4)),
    # A part of a ring is a line.
    ((8,), True, (0, 1, 4)),
    ((8,), True, (0, 1, 2)),
    ((16,), True, (0, 2, 4)),
]


@pytest.mark.parametrize(("shape", "wraps", "which"), CASES)
def test_all_to_all_is_bound_by_the_busiest_link(shape, wraps, which):
    torus = make(shape, wraps)
    groups = [list(range(int(np.prod(shape))))] if which == ALL else along(shape, *which)
    least, one_axis = torus.seconds("all-to-all", SIZE, groups[0])
    assert least == pytest.approx(all_to_all(torus, groups))
    assert one_axis == pytest.approx(2 * least)
    assert torus.seconds("ragged-all-to-all", SIZE, groups[-1])[0] == pytest.approx(least)


def ring_all_gather(torus, groups, dimension):
    """Every device hands its part to its neighbours, half each way; on a line all of it."""
    links = Links(torus)
    for group in groups:
        places = [place(torus, device) for device in group]
        part = SIZE / len(group)
        steps = places[1][dimension] - places[0][dimension]
        closed = torus.wraps[dimension] and steps * len(group) == torus.shape[dimension]
        closed = closed and torus.shape[dimension] > 2
        for at in places:
            for direction in (1, -1):
                if closed:
                    for _ in range((len(group) - 1) * steps):
                        at = links.hop(at, dimension, direction, part / 2)
                else:
                    end = places[-1 if direction == 1 else 0][dimension]
                    links.along(at, dimension, end, part, direction)
    return links.seconds


@pytest.mark.parametrize(
    ("shape", "wraps", "which"),
    [
        ((4,), True, (0, 1)),
        ((8,), True, (0, 1)),
        ((2,), False, (0, 1)),
        ((8,), False, (0, 1)),
        ((8, 4), True, (0, 1)),
        ((8,), True, (0, 2)),
        ((8,), True, (0, 4)),
        ((8,), True, (0, 1, 4)),
    ],
)
def test_all_gather_along_a_dimension_is_that_of_a_ring_or_a_line(shape, wraps, which):
    torus, groups = make(shape, wraps), along(shape, *which)
    expected = ring_all_gather(torus, groups, which[0])
    for kind in ("all-gather", "reduce-scatter", "collective-broadcast"):
        assert torus.seconds(kind, SIZE, groups[0]) == pytest.approx((expected, expected))
    # Reduced and gathered; twice as long.
    assert torus.seconds("all-reduce", SIZE, groups[0]) == pytest.approx((2 * expected,) * 2)


@pytest.mark.parametrize("shape", [(4, 4), (4, 8), (4, 4, 8)])
def test_all_gather_over_a_torus_fills_all_links_of_a_chip(shape):
    torus, n = make(shape), int(np.prod(shape))
    least, one_axis = torus.seconds("all-gather", SIZE, range(n))
    received = SIZE * (n - 1) / n
    assert least == pytest.approx(received / (2 * len(shape) * SPEED))
    assert one_axis == pytest.approx(received / (2 * SPEED))
    assert torus.seconds("all-reduce", SIZE, range(n)) == pytest.approx((2 * least,) * 2)


def test_a_grid_of_lines_and_rings_has_the_links_of_its_corner():
    torus = make((4, 16), (False, True))
    least, one_axis = torus.seconds("all-gather", SIZE, range(64))
    received = SIZE * 63 / 64
    assert (least, one_axis) == pytest.approx((received / (3 * SPEED), received / (2 * SPEED)))


def test_strides_and_speeds_of_the_dimensions():
    torus = make((8, 4, 2), (True, True, False))
    assert torus.spanned_dimensions(range(64)) == [(8, 2 * SPEED), (4, 2 * SPEED), (2, SPEED)]
    assert torus.spanned_dimensions(range(8)) == [(4, 2 * SPEED), (2, SPEED)]
    assert torus.spanned_dimensions(range(0, 64, 16)) == [
        (4, 2 * SPEED / 2)
    ]  # Every other along the first.
    assert torus.spanned_dimensions(range(0, 32, 8)) == [(4, SPEED)]  # Half of the first.
    assert torus.spanned_dimensions([5]) == []


def test_a_dimension_of_two_chips_has_one_link_even_if_it_is_a_ring():
    assert make((2,), True).spanned_dimensions([0, 1]) == [(2, SPEED)]


@pytest.mark.parametrize("kind", ["all-gather", "all-to-all", "all-reduce", "reduce-scatter"])
def test_one_device_takes_no_time(kind):
    assert make((4, 4)).seconds(kind, SIZE, [3]) == (0.0, 0.0)


def test_two_devices_of_a_chip_share_its_links():
    two, one = make((4, 4), devices_per_chip=2), make((4, 4))
    everything, of_chips = range(32), range(16)
    # Each chip has twice as much to send.
    assert two.seconds("all-to-all", SIZE, everything)[0] == pytest.approx(
        all_to_all(two, [list(everything)]), rel=1e-9
    )
    # What both gather comes once.
    gathered = two.seconds("all-gather", SIZE, everything)
    assert gathered == pytest.approx(one.seconds("all-gather", SIZE, of_chips))
    # Two groups, one of the first device of every chip and one of the second.
    first = range(0, 32, 2)
    for kind in ("all-gather", "all-reduce", "all-to-all"):
        apart = two.seconds(kind, SIZE, first)
        assert apart == pytest.approx([2 * each for each in one.seconds(kind, SIZE, of_chips)])
    assert two.seconds("all-gather", SIZE, [6, 7]) == (0.0, 0.0)
    assert two.permute_seconds(SIZE, [(0, 2), (1, 3)]) == 2 * SIZE / SPEED
    assert two.permute_seconds(SIZE, [(0, 1), (2, 4)]) == SIZE / SPEED


@pytest.mark.parametrize(
    ("wraps", "pairs", "hops"),
    [
        (True, [(0, 1), (1, 2)], 1),
        (True, [(0, 7), (7, 6)], 1),
        (False, [(0, 7), (1, 2)], 7),
        (True, [(0, 3), (1, 6)], 3),
        (True, [(2, 2)], 0),
        (True, [], 0),
    ],
)
def test_a_permute_takes_its_longest_path(wraps, pairs, hops):
    assert make((8,), wraps).permute_seconds(SIZE, pairs) == SIZE * hops / SPEED


def test_a_permute_goes_along_every_dimension():
    torus = make((8, 4), (True, False))
    target = 7 * 4 + 3
    assert torus.permute_seconds(SIZE, [(0, target)]) == (1 + 3) * SIZE / SPEED


def collective(kind, groups, payload):
    return Collective(kind, "main", 0, 0, groups, "f32", payload, 3.0)


def test_a_collective_is_priced_by_its_groups():
    torus = make((2, 4), (False, True))
    pairs = collective("collective-permute", parse_source_target_pairs("{{0,1},{1,7}}"), 1000)
    # One hop, and two around the ring.
    assert torus.collective_seconds(pairs) == (1000 * 3 / SPEED,) * 2
    rows = collective("all-gather", parse_replica_groups("[2,4]<=[8]", 8), 1000)
    assert torus.collective_seconds(rows) == pytest.approx((1000 * 3 / 4 / (2 * SPEED),) * 2)
    columns = collective("all-gather", parse_replica_groups("[4,2]<=[2,4]T(1,0)", 8), 1000)
    assert torus.collective_seconds(columns) == pytest.approx((1000 / 2 / SPEED,) * 2)
