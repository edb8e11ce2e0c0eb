"""The model as pure functions of plain dictionaries of arrays, as used in training.

The name of a parameter is its path in the module tree, such as `groups/layers/0/attention/query`.
All parameters under `groups/` are stacked: their first axis is the group of layers.
"""

import copy
import dataclasses
from typing import Any

import jax
from flax import nnx

from moe_jax.models.config import ModelConfig
from moe_jax.models.decoder import Decoder
from moe_jax.models.parameters import split
from moe_jax.routing.router import Router
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition

# Arrays by path.
Arrays = dict[str, jax.Array]

STACKED_PREFIX = "groups/"


@dataclasses.dataclass(frozen=True)
class Variables:
    """The arrays of a model.

    Attributes:
        params: trained parameters, float32.
        router_state: state of the routers that is not trained by gradients, float32.
    """

    params: Arrays
    router_state: Arrays


jax.tree_util.register_dataclass(Variables)


class LanguageModel:
    """A decoder with a given configuration and router, without its arrays.

    Attributes:
        config: the configuration of the model.
        router: the router; None for a dense model.
        partition: the mesh that the model is sharded over, or a single device.

    Raises:
        UserError: if a parameter cannot be sharded over the mesh.
    """

    def __init__(
        self, config: ModelConfig, router: Router | None, partition: Partition = SINGLE_DEVICE
    ):
        self.config = config
        self.partition = partition
        self.router = router if config.num_experts else None
        abstract = nnx.eval_shape(lambda: self._create(jax.random.key(0)))
        self._graph, self._params, self._state = split(abstract)
        shapes = _flatten(self._params)
        for name, axes in self.logical_axes().items():
            partition.check(name, axes, shapes[name].shape)

    def _create(self, key: jax.Array) -> Decoder:
        return Decoder(self.config, self.router, nnx.Rngs(params=key), self.partition)

    def with_router(self, router: Router) -> "LanguageModel":
        """Returns the same model with another router, which must be able to read the same state.

        `model.with_router(model.router.causal())` evaluates and decodes causally.
        """
        if router is self.router or self.router is None:
            return self
        model = copy.copy(self)
        model.router = router
        module = nnx.merge(self._graph, self._params, self._state)
        module.set_router(router)
        model._graph, _, _ = split(module)
        return model

    def causal(self) -> "LanguageModel":
        """Returns the model with the causal form of its router; itself, if they are the same."""
        return self if self.router is None else self.with_router(self.router.causal())

    def for_decoding(self) -> "LanguageModel":
        """Returns the model for arrays laid out for decoding: see `Decoder.set_decoding`."""
        model = copy.copy(self)
        module = nnx.merge(self._graph, self._params, self._state)
        module.set_decoding()
        model._graph, _, _ = split(module)
        return model

    def init(self, key: jax.Array) -> Variables:
        """Initializes the arrays on their devices in one compiled function, without a copy."""

        def create(key: jax.Array) -> Variables:
            _, params, state = split(self._create(key))
            return Variables(_flatten(params), _flatten(state))

        return jax.jit(create, out_shardings=self.shardings())(key)

    def abstract(self) -> Variables:
        """Returns abstract arrays with shapes, types and, on a mesh, shardings."""
        shapes = Variables(_flatten(self._params), _flatten(self._state))
        shardings = self.shardings()
        if shardings is None:
            return shapes
        return jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings
        )

    def shardings(self) -> Any:
        """Returns the shardings in which `Variables` are stored; None without a mesh."""
        if not self.partition.is_sharded:
            return None
        axes = self.logical_axes()
        stored = self.partition.stored
        params: Any = {name: self.partition.sharding(stored(axes[name])) for name in axes}
        state: Any = {name: self.partition.replicated for name in _flatten(self._state)}
        return Variables(params, state)

    def logical_axes(self) -> dict[str, tuple[str, ...]]:
        """Returns the logical axis names of every parameter, with `layers` first if stacked."""
        axes = {}
        for path, variable in self._params.flat_state():
            name = _name(path)
            stacked = ("layers",) if name.startswith(STACKED_PREFIX) else ()
            axes[name] = (*stacked, *variable.get_metadata("logical_axes"))
        return axes

    def bind(self, variables: Variables) -> Decoder:
        """Returns the Flax module with these arrays; for use inside `jax.jit`."""
        return nnx.merge(
            self._graph,
            _unflatten(self._params, variables.params),
            _unflatten(self._state, variables.router_state),
        )

    def update_router_state(
        self, router_state: Arrays, statistics: dict[str, jax.Array], step: jax.Array
    ) -> Arrays:
        """Returns the router state of all layers after a step, given the step's statistics."""
        if self.router is None or not router_state:
            return router_state
        paths = {path.rsplit("/", 1)[1]: path for path in router_state}
        state = {name: router_state[path] for name, path in paths.items()}
        state = self.router.update_state(state, statistics, step)
        return {paths[name]: value for name, value in state.items()}


def _name(path: tuple) -> str:
    return "/".join(str(part) for part in path)


def _flatten(state: nnx.State) -> Arrays:
    return {_name(path): variable.get_value() for path, variable in state.flat_state()}


def _unflatten(abstract: nnx.State, arrays: Arrays) -> nnx.State:
    flat = [(path, var.replace(arrays[_name(path)])) for path, var in abstract.flat_state()]
    return nnx.State.from_flat_path(flat)
