"""The routing of a text: the experts of every token in every layer."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class RoutedLayer:
    """The routing of one mixture-of-experts layer.

    Attributes:
        layer: number of the layer in the model, starting at 1.
        experts: the experts of each token, by descending weight.
        weights: combine weights of these experts.
        share: fraction of the choices of the layer that go to each expert, [E]; zeros if no token
            is routed.
        weight_SE: combine weight of every token for every expert, 0 where it is not chosen.
    """

    layer: int
    experts: list[list[int]]
    weights: list[list[float]]
    share: np.ndarray
    weight_SE: np.ndarray

    @property
    def mean_experts(self) -> float:
        """Mean number of experts per token."""
        return sum(map(len, self.experts)) / max(len(self.experts), 1)


@dataclasses.dataclass(frozen=True)
class RoutedText:
    """The routing of a text.

    Attributes:
        tokens: the pieces of the vocabulary; `▁` stands for a space.
        layers: the routing of the mixture-of-experts layers, in order.
    """

    tokens: list[str]
    layers: list[RoutedLayer]

    def __str__(self) -> str:
        """Returns a table with a row for each token and a column of experts for each layer."""
        width = max([len("token"), *map(len, self.tokens)])
        columns = [[f"layer {layer.layer}", *map(_experts, layer.experts)] for layer in self.layers]
        widths = [max(map(len, column)) for column in columns]
        lines = []
        for number, token in enumerate(["token", *self.tokens]):
            cells = (column[number].ljust(w) for column, w in zip(columns, widths, strict=True))
            lines.append("  ".join([token.ljust(width), *cells]).rstrip())
        return "\n".join(lines)


def read_routed_text(
    tokens: Sequence[str], layers: Sequence[int], weight_LSE: np.ndarray, chosen_LSE: np.ndarray
) -> RoutedText:
    """Makes a `RoutedText` from the arrays of a forward pass.

    Args:
        tokens: the pieces of the text.
        layers: numbers of the mixture-of-experts layers in the model.
        weight_LSE: combine weights, 0 where not chosen.
        chosen_LSE: true where the token is routed to the expert.
    """
    routed_layers = []
    for layer, weight_SE, chosen_SE in zip(layers, weight_LSE, chosen_LSE, strict=True):
        order_SE = np.argsort(-np.where(chosen_SE, weight_SE, -np.inf), axis=-1, kind="stable")
        experts = [
            [int(e) for e in order if chosen[e]]
            for order, chosen in zip(order_SE, chosen_SE, strict=True)
        ]
        weights = [
            [float(weight_E[e]) for e in chosen]
            for weight_E, chosen in zip(weight_SE, experts, strict=True)
        ]
        count_E = chosen_SE.sum(0)
        share = count_E / max(count_E.sum(), 1)
        routed_layers.append(
            RoutedLayer(int(layer), experts, weights, share, np.asarray(weight_SE))
        )
    return RoutedText(list(tokens), routed_layers)


def _experts(experts: Sequence[int]) -> str:
    return " ".join(map(str, experts)) or "-"
