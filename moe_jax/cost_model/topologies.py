"""TPU slices by name: shape, network, and devices without hardware.

A slice is named by its chip and shape, `v5p:8x8x8`, or as Google names it, `v5p-1024`; several
slices over the data-centre network are `2*v5e:16x16`. The shapes are those of Google's pages
(https://docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x), where chips with a 3-D torus come
in cubes of 4x4x4 joined by optical switches, and in parts of a cube.
"""

import dataclasses
import importlib.util
import itertools
import math
import os
import re
from typing import Any

from moe_jax.cost_model.chips import Chip, get_chip
from moe_jax.errors import UserError, nearest

# Slice shapes of chips with a 2-D torus, and those below one cube of chips with a 3-D torus.
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_PARTS = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_CUBE = 4
_NAME = re.compile(
    r"(?:(?P<slices>\d+)\*)?(?P<chip>[a-z0-9]+)(?::(?P<shape>\d+(?:x\d+)+)|-(?P<number>\d+))", re.I
)
_EXAMPLES = "v4:8x8x8, v5p-1024, v5e:16x16, 2*v6e:16x16, tpu7x:4x4x4"


@dataclasses.dataclass(frozen=True)
class Topology:
    """One slice, or several equal ones.

    Attributes:
        chip: kind of chip.
        shape: chips along each axis of a slice.
        slices: number of equal slices, joined by the data-centre network.
        shape_is_default: whether the name gave a number of chips or cores that several shapes have,
            and Google's default was chosen, the nearest to a cube.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1
    shape_is_default: bool = dataclasses.field(default=False, compare=False)

    def __str__(self) -> str:
        slices = f"{self.slices}*" if self.slices > 1 else ""
        return f"{slices}{self.chip.name}:{_shape_text(self.shape)}"

    @property
    def chips_per_slice(self) -> int:
        """Chips of one slice."""
        return math.prod(self.shape)

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slices * self.chips_per_slice

    @property
    def device_count(self) -> int:
        """JAX devices of all slices."""
        return self.chips * self.chip.devices

    @property
    def host_shape(self) -> tuple[int, int, int]:
        """Chips of one host along each axis: 4 of them, or a slice of 1 or 8 on a host of its own.

        Source: the machine types on Google's pages, such as ct5lp-hightpu-8t for v5e's 2x4.
        """
        if self.shape == (1, 1):
            return (1, 1, 1)
        return (2, 4, 1) if self.shape == (2, 4) else (2, 2, 1)

    @property
    def hosts(self) -> int:
        """Hosts of all slices, one process each."""
        return self.chips // math.prod(self.host_shape)

    @property
    def wraps(self) -> tuple[bool, ...]:
        """For each axis, True if it is a ring (has wraparound links).

        The optical switches of a 3-D torus close every axis of a slice of whole cubes; an axis of
        v5e and v6e is closed if it spans the whole pod, 16 chips ("How to Scale Your Model",
        https://jax-ml.github.io/scaling-book/tpus). Twisted tori are not distinguished.
        """
        if self.chip.torus_dimensions == 2:
            return tuple(size == 16 for size in self.shape)
        whole = all(size % _CUBE == 0 for size in self.shape)
        return (whole,) * len(self.shape)

    @property
    def accelerator_type(self) -> str:
        """Google's name of one slice, which does not determine its shape."""
        prefix = "v5litepod" if self.chip.name == "v5e" else self.chip.name
        return f"{prefix}-{self.chips_per_slice * _name_units(self.chip)}"

    def describe(self) -> str:
        """Returns one line with the name, counts, rings, and whether the shape is the default."""
        rings = [str(size) for size, wraps in zip(self.shape, self.wraps, strict=True) if wraps]
        line = (
            f"{self}: {_plural(self.chips, 'chip')}, {_plural(self.device_count, 'device')}, "
            f"{_plural(self.hosts, 'host')}, "
        )
        line += f"rings of {', '.join(rings)}" if rings else "no rings"
        if self.shape_is_default:
            line += (
                f" (the default shape of {self.accelerator_type}; others as {self.chip.name}:AxB"
            )
            line += "xC)" if self.chip.torus_dimensions == 3 else ")"
        return line

    def devices(self) -> list[Any]:
        """Returns JAX devices to compile for; needs libtpu and no TPU.

        Call it in a process that was started with the variables of `compiler_environment`. A
        device's `coords` are its chip's; `slice_index` exists if there are several slices.

        Raises:
            UserError: if libtpu is missing or rejects the slice.
        """
        require_libtpu()
        import jax
        from jax.experimental import topologies

        options: dict[str, Any] = {"chips_per_host_bounds": self.host_shape}
        if self.chip.config_name:
            options["chip_config_name"] = self.chip.config_name
        if self.slices > 1:
            options["num_slices"] = self.slices
        name = f"{self.chip.name}:{_shape_text(self.shape)}"
        try:
            return list(topologies.get_topology_desc(name, "tpu", **options).devices)
        except jax.errors.JaxRuntimeError as error:
            first = str(error).splitlines()[0]
            raise UserError(f"libtpu cannot describe {self}: {first}") from error


def parse_topology(name: str) -> Topology:
    """Parses the name of one slice or of several equal ones.

    Args:
        name: CHIP:AxB, CHIP:AxBxC or Google's CHIP-NUMBER, which counts cores for v4, v5p and
            tpu7x and chips for v5e (also `v5litepod`) and v6e; with the prefix N* for N slices.

    Raises:
        UserError: for an unknown chip or slice shape.
    """
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise UserError(f"{name!r} does not name a TPU slice; expected such as {_EXAMPLES}")
    chip, slices = get_chip(match["chip"]), int(match["slices"] or 1)
    if slices < 1:
        raise UserError(f"{name!r}: the number of slices must be above 0")
    if match["number"]:
        shapes = _shapes_of(chip, f"{match['chip']}-{match['number']}", int(match["number"]))
        return Topology(chip, min(shapes, key=sum), slices, shape_is_default=len(shapes) > 1)
    shape = tuple(int(size) for size in match["shape"].split("x"))
    if not _exists(chip, shape):
        raise UserError(_no_such_shape(chip, shape))
    return Topology(chip, shape, slices)


def known_slice_shapes(chip: Chip) -> list[tuple[int, ...]]:
    """Returns the slice shapes of a chip, small ones first; of whole cubes the usual ones."""
    if chip.torus_dimensions == 2:
        return list(_FLAT)
    cubes = ((4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16), (8, 16, 16), (16, 16, 16))
    return [*_PARTS, *cubes]


def compiler_environment(topology: Topology) -> dict[str, str]:
    """Returns environment variables for a compiling child process, to be set before JAX starts.

    They keep JAX on the CPU, and libtpu from querying Google Cloud's metadata server, from taking
    its lock of one process at a time, and from writing logs.

    Args:
        topology: compilation target.
    """
    return {
        "JAX_PLATFORMS": "cpu",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": topology.accelerator_type,
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
    }


def require_libtpu() -> None:
    """Checks that libtpu is installed: the package, or the library at TPU_LIBRARY_PATH.

    Raises:
        UserError: if it is missing, with the command that installs it.
    """
    library = os.environ.get("TPU_LIBRARY_PATH")
    if library and os.path.isfile(library):
        return
    found = importlib.util.find_spec("libtpu")
    if found is None or found.origin is None:
        raise UserError("the TPU compiler is not installed: pip install 'moe_jax[tpu]'")


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count > 1 else "")


def _name_units(chip: Chip) -> int:
    """Returns how much one chip adds to the number in Google's slice names."""
    return chip.cores if chip.name_counts == "cores" else 1


def _exists(chip: Chip, shape: tuple[int, ...]) -> bool:
    """Returns whether a slice can have this shape; axes of whole cubes are in ascending order."""
    if chip.torus_dimensions == 2 or shape in _PARTS or len(shape) != 3:
        return shape in known_slice_shapes(chip)
    whole = all(size and size % _CUBE == 0 for size in shape)
    return whole and shape == tuple(sorted(shape)) and math.prod(shape) <= chip.largest_slice


def _no_such_shape(chip: Chip, shape: tuple[int, ...]) -> str:
    """Returns the error message for a shape that no slice has, with the known shapes."""
    known = [_shape_text(known) for known in known_slice_shapes(chip)]
    more = ""
    if chip.torus_dimensions == 3:
        more = f" or multiples of 4 in rising order, up to {chip.largest_slice:,} chips"
    ordered = tuple(sorted(shape))
    if _exists(chip, ordered):
        hint = f" Did you mean {_shape_text(ordered)!r}?"
    else:
        hint = nearest(_shape_text(shape), known)
    return (
        f"no slice of {chip.name} is {_shape_text(shape)}; known: {', '.join(known)}{more}.{hint}"
    )


def _shapes_of(chip: Chip, name: str, number: int) -> list[tuple[int, ...]]:
    """Returns the slice shapes with this number in Google's names.

    If there are several, the default is the one with the smallest sum of axes. Source: the default
    topologies on Google's page of v4 (v4-512 is 4x8x8), and those of v5p in MaxText's
    accelerator_to_spec_map.py, which agree.

    Raises:
        UserError: if no slice has this number.
    """
    chips, rest = divmod(number, _name_units(chip))
    shapes = [shape for shape in known_slice_shapes(chip) if math.prod(shape) == chips]
    cubes, part = divmod(chips, _CUBE**3)
    if chip.torus_dimensions == 3 and cubes and not part and chips <= chip.largest_slice:
        divisors = [size for size in range(1, cubes + 1) if cubes % size == 0]
        shapes = [
            (_CUBE * a, _CUBE * b, _CUBE * (cubes // (a * b)))
            for a, b in itertools.product(divisors, repeat=2)
            if cubes % (a * b) == 0 and a <= b <= cubes // (a * b)
        ]
    if rest or not shapes:
        numbers = [math.prod(shape) * _name_units(chip) for shape in known_slice_shapes(chip)]
        near = min(numbers, key=lambda known: abs(known - number))
        raise UserError(
            f"no slice is called {name!r}: its number counts {chip.name_counts}; known: "
            f"{', '.join(f'{chip.name}-{known}' for known in numbers)}. "
            f"Did you mean '{chip.name}-{near}'?"
        )
    return shapes
