"""Tokens per second of generation by batch size, beside a dense model of equal active FLOPs."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.benchmarks.matmul import seconds
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.experiments import Experiment
from moe_jax.flops import equal_flops_width
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.config import ModelConfig
from moe_jax.models.functional import LanguageModel, Variables

# Prompts have half of this to all of it.
_PROMPT_LENGTH = 31


@dataclasses.dataclass(frozen=True)
class GenerationTime:
    """The times of one batch size; the dense model runs right before in every round.

    Attributes:
        batch: number of prompts.
        prefill_seconds: median time of reading the prompts and sampling the first tokens.
        prefill_ratio: median ratio of it to that of the dense model.
        decode_tokens_per_second: new tokens of all rows, by the median time after the first.
        tokens_per_second: the same with the time of the prompts.
        dense_tokens_per_second: `decode_tokens_per_second` of the dense model.
        decode_ratio: median ratio of the dense model's decoding time to this one's; above 1,
            the mixture of experts is faster.
        decode_ratio_low: first quartile of the ratios of the rounds.
        decode_ratio_high: third quartile.
        speed_up: tokens per second of decoding relative to the first batch size, median of the
            ratios within rounds.
    """

    batch: int
    prefill_seconds: float
    prefill_ratio: float
    decode_tokens_per_second: float
    tokens_per_second: float
    dense_tokens_per_second: float
    decode_ratio: float
    decode_ratio_low: float
    decode_ratio_high: float
    speed_up: float


@dataclasses.dataclass(frozen=True)
class GenerationTimes:
    """The result of `measure`.

    Attributes:
        rows: the times by batch size.
        experts_per_token: mean number of experts of a token in the measured model, with random
            weights; 0 for a dense model.
        dense_width: `Model.d_ff` of the dense model.
    """

    rows: list[GenerationTime]
    experts_per_token: float
    dense_width: int


def measure(
    experiment: Experiment, batches: Sequence[int], tokens: int, rounds: int
) -> GenerationTimes:
    """Measures a model with random weights; texts have no end, so that all rows go on.

    Args:
        experiment: the model and the settings of sampling.
        batches: numbers of prompts, each decoded at once.
        tokens: number of new tokens of each row.
        rounds: number of runs of every model and batch size, in turn.
    """
    sampling = dataclasses.replace(experiment.sampling, max_new_tokens=tokens)
    model = experiment.language_model()
    dense = LanguageModel(_dense(experiment), None)
    cases = {}
    for name, of in (("dense", dense), ("model", model)):
        variables = of.init(jax.random.key(0))
        for batch in batches:
            cases[name, batch] = _Case(of, variables, batch, sampling)
    for _ in range(rounds):
        for case in cases.values():
            case.run()
    experts = 0.0
    if model.router is not None:
        experts = _mean_experts(model, model.init(jax.random.key(0)))
    rows = [_row(cases, batch, batches[0], tokens) for batch in batches]
    return GenerationTimes(rows, experts, dense.config.d_ff)


class _Case:
    """A model and a batch size, with the times of all rounds."""

    def __init__(
        self, model: LanguageModel, variables: Variables, batch: int, sampling: SamplingConfig
    ):
        rng, size = np.random.default_rng(batch), model.config.vocab_size
        lengths = rng.integers(_PROMPT_LENGTH // 2, _PROMPT_LENGTH + 1, batch)
        self._prompts = [rng.integers(1, size, length).tolist() for length in lengths]
        self._generator, self._variables = Generator(model, sampling, end=-1), variables
        self.prefill: list[float] = []
        self.decode: list[float] = []
        # Compiles and warms up.
        self.run()
        self.prefill.clear()
        self.decode.clear()

    def run(self) -> None:
        """Runs once."""
        states = []

        def prefill() -> None:
            states.append(self._generator.prefill(self._variables, self._prompts))
            jax.block_until_ready(states[-1])

        def decode() -> None:
            jax.block_until_ready(self._generator.decode(self._variables, states.pop()))

        self.prefill.append(seconds(prefill))
        self.decode.append(seconds(decode))


def _row(
    cases: dict[tuple[str, int], _Case], batch: int, first: int, tokens: int
) -> GenerationTime:
    case, dense, least = cases["model", batch], cases["dense", batch], cases["model", first]
    ratios = _ratios(dense.decode, case.decode)
    low, high = (float(q) for q in np.quantile(ratios, [0.25, 0.75]))
    prefill, decode = statistics.median(case.prefill), statistics.median(case.decode)
    return GenerationTime(
        batch=batch,
        prefill_seconds=prefill,
        prefill_ratio=statistics.median(_ratios(case.prefill, dense.prefill)),
        decode_tokens_per_second=batch * (tokens - 1) / decode,
        tokens_per_second=batch * tokens / (prefill + decode),
        dense_tokens_per_second=batch * (tokens - 1) / statistics.median(dense.decode),
        decode_ratio=statistics.median(ratios),
        decode_ratio_low=low,
        decode_ratio_high=high,
        speed_up=batch / first * statistics.median(_ratios(least.decode, case.decode)),
    )


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _dense(experiment: Experiment) -> ModelConfig:
    """Returns the dense model with the active FLOPs of the experiment's."""
    model = experiment.model
    if not model.num_experts:
        return model
    width = equal_flops_width(
        model.d_ff,
        model.num_experts,
        experiment.experts_per_token + model.num_shared_experts,
        model.moe_every,
        model.feed_forward,
    )
    return dataclasses.replace(model, num_experts=0, num_shared_experts=0, d_ff=width)


def _mean_experts(model: LanguageModel, variables: Variables) -> float:
    """Returns the mean number of experts of random tokens, routed causally."""
    size = model.config.vocab_size
    tokens_BS = jax.random.randint(jax.random.key(1), (8, _PROMPT_LENGTH), 1, size)
    count: Callable = jax.jit(
        lambda variables: model.causal().bind(variables)(BatchContext.of_tokens(tokens_BS)).routing
    )
    return float(jnp.mean(count(variables).metrics["mean_experts"]))
