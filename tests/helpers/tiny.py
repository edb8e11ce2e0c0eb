"""Tiny models and batches that tests share."""

import dataclasses

import jax
import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.models.config import ModelConfig
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.routing.router import Router

CONFIG = ModelConfig(
    vocab_size=64,
    num_layers=4,
    d_model=32,
    num_heads=2,
    head_dim=16,
    d_ff=48,
    num_experts=4,
    relative_buckets=8,
    relative_max_distance=16,
)


# A run of the command line that starts fast; a test adds its steps and what it is about.
RUN = """
include 'runs/quickstart.gin'
Model.d_model = 16
Model.d_ff = 32
Model.num_heads = 2
Model.head_dim = 8
Data.batch_size = 8
Data.sequence_length = 32
"""
# What makes runs of different lengths the same as far as they go, and every step recorded.
STEADY = """
AdamW.learning_rate = @InverseSquareRoot()
InverseSquareRoot.scale = 0.1
Data.eval_batches = 1
Train.log_every = 1
Train.eval_every = 0
Sampling.max_new_tokens = 1
"""


def config(**changes: object) -> ModelConfig:
    """Returns the tiny model's shape with changes."""
    return dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]


def make(
    router: Router | None, seed: int = 0, **changes: object
) -> tuple[LanguageModel, Variables]:
    """Returns a tiny model and its initial arrays."""
    model = LanguageModel(config(**changes), router)
    return model, model.init(jax.random.key(seed))


def tokens(batch: int, length: int, seed: int = 0, vocab: int = 64) -> np.ndarray:
    """Returns random tokens, none of them padding."""
    return np.random.default_rng(seed).integers(1, vocab, (batch, length)).astype(np.int32)


def make_batch(batch: int, length: int, seed: int = 0, vocab: int = 64) -> Batch:
    """Returns a batch of random rows without padding."""
    targets = tokens(batch, length, seed, vocab)
    inputs = np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], axis=1)
    return Batch(inputs, targets, np.ones(targets.shape, np.float32))
