"""Other ways to run the same model, as gin bindings: what a sweep tries, and what saves memory."""

import dataclasses
import re
from collections.abc import Iterator

from moe_jax.config import shipped
from moe_jax.experiment import Experiment
from moe_jax.models.config import ACTIVATIONS
from moe_jax.pods.topologies import Topology

# XLA's, by the start of a chip's name: what lets collectives run beside computation.
ASYNC_OPTIONS = (
    "xla_enable_async_all_gather",
    "xla_tpu_enable_async_all_to_all",
    "xla_enable_async_all_reduce",
)
# Takes parts of all-reduces along in matrix products; on v4 code generation can want more fast
# memory for it than there is.
FUSED_OPTIONS = (*ASYNC_OPTIONS, "xla_tpu_enable_async_collective_fusion_fuse_all_reduce")
SPARSE_CORE_OPTIONS = (
    "xla_tpu_enable_async_all_to_all",
    "xla_tpu_enable_sparse_core_collective_offload_all_gather",
    "xla_tpu_enable_sparse_core_collective_offload_2d_all_gather",
    "xla_tpu_enable_sparse_core_collective_offload_3d_all_gather",
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter",
    "xla_tpu_enable_sparse_core_collective_offload_all_reduce",
)
# Chips whose SparseCores can run collectives.
_OFFLOADING = ("v5p", "v6e", "tpu7x")
# Code generation refuses it there: "Async all-to-all not supported on limited ICI".
_NEVER = {"v5e": ("xla_tpu_enable_async_all_to_all",)}
# Kept for the backward pass, the cheapest to keep for what it saves first.
KEPT = ("moe_rows", "moe_out", "qkv", "attention_context", "moe_in", "ffn_hidden", "moe_hidden")
assert set(KEPT) <= set(ACTIVATIONS)
# How many of them are tried.
_COUNTS = (0, 3, 5, 6, 7)
# The package's meshes by chip, chips and experts.
_MESH_FILE = re.compile(r"mesh/([a-z0-9]+)_(\d+)_(\d+)_experts\.gin")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run.

    Attributes:
        name: in words.
        bindings: gin bindings that make it.
        files: gin files that make it, under the bindings.
    """

    name: str
    bindings: tuple[str, ...]
    files: tuple[str, ...] = ()


def remat_variants() -> list[Variant]:
    """Returns rematerialisation from nothing kept to everything that is worth it."""
    found = [Variant("remat full", ("Model.remat='full'",))]
    for count in _COUNTS[1:]:
        kept = KEPT[:count]
        bindings = ("Model.remat='named'", f"Model.remat_names={kept!r}")
        found.append(Variant(f"remat keeps {', '.join(kept)}", bindings))
    return found


def mesh_file_variants(described: Experiment, topology: Topology) -> list[Variant]:
    """Returns the package's mesh files for this chip and the experts, the nearest size first."""
    experts = described.model.num_experts
    found = []
    for name in shipped():
        match = _MESH_FILE.fullmatch(name)
        if match and match[1] == topology.chip.name and experts and not experts % int(match[3]):
            chips = int(match[2])
            apart = max(chips, topology.chips) / min(chips, topology.chips)
            found.append((apart, Variant(name, (), (name,))))
    return [variant for _, variant in sorted(found, key=lambda item: item[0])]


def mesh_variants(described: Experiment, topology: Topology) -> list[Variant]:
    """Returns meshes whose axes of experts and weights divide the devices."""
    devices, experts = topology.device_count, described.model.num_experts
    found = []
    sizes = [size for size in (1, 8, 16, 32, 64, 128) if experts % size == 0 and experts]
    for expert in [size for size in sizes if size <= devices and devices % size == 0] or [1]:
        rest = devices // expert
        for axis in ("fsdp", "data") if rest > 1 else ("fsdp",):
            other = "data" if axis == "fsdp" else "fsdp"
            cuts = {"('fsdp', 'expert')", "'fsdp'", "'expert'"} if expert > 1 else {"'fsdp'"}
            for cut in sorted(cuts):
                if axis == "data" and "fsdp" in cut:
                    continue
                bindings = (
                    f"Mesh.{axis}={rest}",
                    f"Mesh.{other}=1",
                    f"Mesh.expert={expert}",
                    f"Mesh.rules={{'embed': {cut}}}",
                )
                shown = cut.strip("()").replace("'", "")
                name = f"{axis} {rest} x expert {expert}, weights over {shown}"
                found.append(Variant(name, bindings))
    return found


def option_variants(topology: Topology) -> list[Variant]:
    """Returns sets of the compiler's options."""
    groups = {
        "XLA's defaults": (),
        "asynchronous collectives": ASYNC_OPTIONS,
        "asynchronous, all-reduces in products": FUSED_OPTIONS,
    }
    chip = topology.chip.name
    if chip in _OFFLOADING:
        groups["collectives on SparseCores"] = SPARSE_CORE_OPTIONS
    found = []
    for name, names in groups.items():
        options = {option: "true" for option in names if option not in _NEVER.get(chip, ())}
        found.append(Variant(name, (f"Train.compiler_options={options!r}",)))
    return found


def dispatch_variants(described: Experiment) -> list[Variant]:
    """Returns who arranges the travel of tokens to experts: we, or the compiler."""
    if not described.model.num_experts:
        return []
    return [
        Variant(f"{kind} expert parallelism", (f"Mesh.expert_parallelism='{kind}'",))
        for kind in ("explicit", "implicit")
    ]


def smaller_variants(described: Experiment, topology: Topology) -> Iterator[Variant]:
    """Yields what takes less memory than the configuration, the dearest last."""
    if described.model.remat != "full":
        # Other policies keep more than what has a name.
        named = described.model.remat == "named"
        keeps = len(described.model.remat_names) if named else len(KEPT) + 1
        for count, variant in reversed(list(zip(_COUNTS, remat_variants(), strict=True))):
            if count < keeps:
                yield variant
    for parts in (2, 4, 8, 16):
        accumulation = described.train.accumulation * parts
        if described.data.batch_size % (accumulation * topology.device_count) == 0:
            bindings = ("Model.remat='full'", f"Train.accumulation={accumulation}")
            yield Variant(f"remat full, {accumulation} micro-batches", bindings)


def tensor_variants(described: Experiment, topology: Topology) -> list[Variant]:
    """Returns meshes on which devices share each matrix product, and with it its activations."""
    found = []
    for tensor in (2, 4, 8):
        devices = described.mesh.sizes(topology.device_count)
        rest, left = divmod(devices["fsdp"] * devices["data"], tensor)
        heads = described.model.num_heads % (tensor * devices["tensor"])
        if not left and not heads:
            sizes = {"data": 1, "fsdp": rest, "tensor": tensor * devices["tensor"]}
            bindings = tuple(f"Mesh.{axis}={size}" for axis, size in sizes.items())
            found.append(Variant(f"fsdp {rest}, tensor {sizes['tensor']}", bindings))
    return found
