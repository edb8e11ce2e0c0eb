"""A trained run for use from Python: text generation, evaluation, routing and logits."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args, overload

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from moe_jax.data.pipeline.batch_source import vocabulary_for
from moe_jax.errors import UserError, nearest
from moe_jax.evaluation.perplexity import Perplexity
from moe_jax.experiments import Experiment
from moe_jax.library_output import suppress_library_output
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.runs.evaluation import evaluate, read_evaluation_data
from moe_jax.runs.generation import TextGenerator
from moe_jax.runs.loading import TrainedModel
from moe_jax.runs.routed_text import RoutedText, read_routed_text
from moe_jax.types import LogitsBSV

# `causal` is the routing of generation; `trained` is that of training, in which the choices of a
# router that is not causal depend on later tokens.
RoutingMode = Literal["causal", "trained"]
ROUTING_MODES: tuple[RoutingMode, ...] = get_args(RoutingMode)
Tokens = str | Sequence[int] | np.ndarray | jax.Array


class TrainedRun:
    """A trained model on one device with its vocabulary and data, as returned by `moe_jax.load`.

    Its methods use the same functions as the commands `moe-jax generate` and `moe-jax eval`.

    Attributes:
        directory: the run directory.
        step: the step of the checkpoint.
        experiment: the configuration of the run.
        model: the model without its arrays; `model.bind(variables)` is the Flax module.
        variables: the arrays of the model: `params`, for `jax.grad`, and `router_state`.
    """

    def __init__(self, trained: TrainedModel):
        self._trained = trained
        self.directory: epath.Path = trained.run.directory
        self.step: int = trained.step
        self.experiment: Experiment = trained.run.experiment
        self.model: LanguageModel = trained.model
        self.variables: Variables = trained.variables
        self._generators: dict[Any, TextGenerator] = {}
        self._vocabulary: Any = None
        self._compute_logits = jax.jit(_logits, static_argnums=0)
        self._compute_routing = jax.jit(_route, static_argnums=0)

    def __repr__(self) -> str:
        """Returns the directory, the step and the number of parameters."""
        parameters = self.experiment.parameters().total
        return f"<TrainedRun {self.directory}, step {self.step:,}, {parameters:,} parameters>"

    @property
    def vocabulary(self) -> Any:
        """The vocabulary, a `seqio.SentencePieceVocabulary`; with cached rows, one like it."""
        if self._vocabulary is None:
            with suppress_library_output():
                self._vocabulary = vocabulary_for(self.experiment.data)
        return self._vocabulary

    @overload
    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> list[str]: ...

    def generate(
        self,
        prompt: str | list[str] | tuple[str, ...] = "",
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> str | list[str]:
        """Generates a continuation of each prompt, with causal routing.

        Args:
            prompt: the text to continue; for a run on a task with inputs, the inputs. Several
                prompts are decoded in batches; the text of each is the same as alone.
            max_new_tokens: maximum number of tokens; None for `Sampling.max_new_tokens`.
            temperature: sampling temperature, 0 for the most probable token; None for
                `Sampling.temperature`.
            seed: seed of sampling; None for `Sampling.seed`.

        Returns:
            the text after the prompt; a list of them for several prompts.

        Raises:
            UserError: for a setting that cannot be used, and for a prompt as long as a row.
        """
        given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        changes: Any = {name: value for name, value in given.items() if value is not None}
        sampling = dataclasses.replace(self.experiment.sampling, **changes)
        # The seed is an argument of the compiled program.
        key = dataclasses.replace(sampling, seed=0)
        if key not in self._generators:
            with suppress_library_output():
                self._generators[key] = TextGenerator(self._trained, sampling)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        generated = self._generators[key].texts(prompts, seed=sampling.seed)
        texts = [text.text for text in generated]
        return texts[0] if isinstance(prompt, str) else texts

    def evaluate(
        self, task: str | None = None, *, split: str | None = None, batches: int | None = None
    ) -> Perplexity:
        """Evaluates on held-out data, with training and with causal routing.

        Args:
            task: a task, as in `Data.task`, such as `text:files/*.txt`; None for that of the run.
            split: the split to evaluate on; None for `Data.eval_split`.
            batches: maximum number of batches; 0 for the whole split, None for
                `Data.eval_batches`.

        Returns:
            losses in nats per token, perplexities, bits per byte.

        Raises:
            UserError: for a task or split that does not exist or cannot be read.
        """
        given = {"task": task, "eval_split": split, "eval_batches": batches}
        changes: Any = {name: value for name, value in given.items() if value is not None}
        own = self.experiment.data
        if (task or own.task, split or own.eval_split) != (own.task, own.eval_split):
            changes["rows_dir"] = None  # Cached rows have the run's own task and split only.
        data = dataclasses.replace(own, **changes)
        experiment = dataclasses.replace(self.experiment, data=data)
        run = dataclasses.replace(self._trained.run, experiment=experiment)
        with suppress_library_output():
            held_out = read_evaluation_data(run)
        return evaluate(self._trained, held_out)

    def tokenize(self, text: str) -> list[int]:
        """Returns the tokens of a text, without an end-of-sequence token."""
        return cast(list[int], list(self.vocabulary.encode(text)))

    def logits(self, tokens: Tokens, routing: RoutingMode = "causal") -> LogitsBSV:
        """Computes the logits of every token, given the tokens before it in its row.

        `logits[b, s]` predicts `tokens[b, s]`: the input of the model is the tokens shifted right
        by one, starting with the token 0. The cross-entropy of the logits with the tokens is the
        loss of `evaluate`.

        Args:
            tokens: a text, the tokens of one row [S], or of several rows [B, S].
            routing: `causal`, as in generation, or `trained`, as in training, in which the choices
                of a router that is not causal also depend on later tokens.

        Returns:
            the logits, float32 [B, S, V].

        Raises:
            UserError: for tokens that are not in the vocabulary, and for an unknown routing.
        """
        tokens_BS = self._token_rows(tokens)
        return self._compute_logits(self._routed_model(routing), self.variables, tokens_BS)

    def route(self, text: Tokens, routing: RoutingMode = "causal") -> RoutedText:
        """Computes the experts of every token of a text in every mixture-of-experts layer.

        Args:
            text: a text, or the tokens of one row [S].
            routing: see `logits`.

        Raises:
            UserError: for a dense model, for more than one row, and as in `logits`.
        """
        if self.model.router is None:
            raise UserError(f"{self.directory} is a dense model: it routes nothing")
        tokens_BS = self._token_rows(text)
        if len(tokens_BS) > 1:
            raise UserError(f"route takes one row of tokens, not {len(tokens_BS)}")
        model = self._routed_model(routing)
        chosen = self._compute_routing(model, self.variables, tokens_BS)
        pieces = [self.vocabulary.tokenizer.IdToPiece(int(token)) for token in tokens_BS[0]]
        return read_routed_text(pieces, self.experiment.model.moe_layers, *jax.device_get(chosen))

    def _routed_model(self, routing: RoutingMode) -> LanguageModel:
        if routing not in ROUTING_MODES:
            raise UserError(
                f"routing = {routing!r} is unknown; known: {', '.join(ROUTING_MODES)}."
                + nearest(routing, ROUTING_MODES)
            )
        return self.model.causal() if routing == "causal" else self.model

    def _token_rows(self, tokens: Tokens) -> np.ndarray:
        if isinstance(tokens, str):
            tokens = self.tokenize(tokens)
        array = np.atleast_2d(np.asarray(tokens))
        if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
            raise UserError(
                f"tokens are a text, or whole numbers [S] or [B, S], not {array.dtype} "
                f"of shape {np.shape(tokens)}"
            )
        size = self.experiment.model.vocab_size
        if array.min() < 0 or array.max() >= size:
            wrong = int(array.min() if array.min() < 0 else array.max())
            raise UserError(f"the token {wrong} is not in the vocabulary of {size} tokens")
        return array.astype(np.int32)


def _shifted(tokens_BS: jax.Array) -> BatchContext:
    """Returns the model inputs for predicting the tokens: shifted right by one, starting with 0."""
    return BatchContext.of_tokens(jnp.pad(tokens_BS, ((0, 0), (1, 0)))[:, :-1])


def _logits(model: LanguageModel, variables: Variables, tokens_BS: jax.Array) -> LogitsBSV:
    decoder = model.bind(variables)
    return decoder.logits(decoder(_shifted(tokens_BS)).hidden_BSD)


def _route(
    model: LanguageModel, variables: Variables, tokens_BS: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the combine weights and the choices of all layers, [L, S, E] each."""
    context = RoutingContext(keeps_choices=True)
    routing = model.bind(variables)(BatchContext.of_tokens(tokens_BS), context=context).routing
    assert routing.weight_BSE is not None
    assert routing.chosen_BSE is not None
    return routing.weight_BSE[:, 0], routing.chosen_BSE[:, 0]
