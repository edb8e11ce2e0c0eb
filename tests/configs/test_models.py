"""Every file in configs/models/ against the table it comes from, and with every file of routers."""

import dataclasses
import math

import pytest
from tiers import mostly_slow

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.data.pipeline import input_pipeline
from moe_jax.errors import UserError
from moe_jax.flops import count_parameters, train_flops_per_token

MODELS = [name for name in config.shipped() if name.startswith("models/")]
ROUTERS = [name for name in config.shipped() if name.startswith("routers/")]
# Files that follow no table.
OTHERS = {"models/tiny_8e.gin"}
# Unless their paper's own counts say otherwise, files have T5's vocabulary rather than the 32,000
# that the tables of the papers were counted with (their texts say 256K, which would add 172M to a
# model that is printed as 130M in all).
T5_VOCABULARY, COUNTED_VOCABULARY = 32_128, 32_000


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: L, M, H, heads, width of a head, E, and the counts as printed."""

    layers: int
    model: int
    hidden: int
    heads: int
    head: int
    experts: int
    total: str
    activated: str


# Zhou et al. 2022, table 1; the last two: Du et al. 2022 (GLaM), table 4.
TABLE = {
    "100m_dense": Row(12, 768, 3072, 12, 64, 0, "130M", "130M"),
    "100m_16e": Row(12, 768, 3072, 12, 64, 16, "548M", "145M"),
    "100m_32e": Row(12, 768, 3072, 12, 64, 32, "1.0B", "145M"),
    "100m_64e": Row(12, 768, 3072, 12, 64, 64, "1.9B", "145M"),
    "100m_128e": Row(12, 768, 3072, 12, 64, 128, "3.7B", "145M"),
    "8b_dense": Row(32, 4096, 16384, 32, 128, 0, "8.7B", "8.7B"),
    "8b_64e": Row(32, 4096, 16384, 32, 128, 64, "143B", "9.8B"),
    "glam_1_7b_64e": Row(24, 2048, 8192, 16, 128, 64, "27B", "1.879B"),
    "glam_64b_64e": Row(64, 8192, 32768, 128, 128, 64, "1.2T", "96.6B"),
}
# Cells that no vocabulary of 32,000 or more can give, with the parameters by which they are low:
# attention, feed-forwards and embedding of the dense 0.1B are 137.8M in all.
LOW = {("100m_dense", "total"): 8e6}
LOW |= {(f"100m_{size}", "activated"): 8e6 for size in ("dense", "16e", "32e", "64e", "128e")}
UNITS = {"M": 1e6, "B": 1e9, "T": 1e12}


def load(*files, bindings=()):
    return experiments.load(ConfigSource(["runs/pretrain.gin", *files], list(bindings)))


def printed(cell):
    """Returns a printed count and half a unit of its last digit."""
    digits = len(cell[:-1].partition(".")[2])
    unit = UNITS[cell[-1]]
    return float(cell[:-1]) * unit, 0.5 * 10**-digits * unit


def closed_form(row, vocabulary, experts):
    """Counts parameters from a row: tied embedding, 4 attention matrices, 3 of a dense layer, 2 of
    an expert, every other layer a mixture of so many experts with its router, 2 norms a layer and a
    last one, 32 buckets of positions a head and layer.
    """
    mixtures = row.layers // 2 if row.experts else 0
    matrices = 4 * row.heads * row.head * row.layers
    matrices += 3 * row.hidden * (row.layers - mixtures)
    matrices += (2 * row.hidden * experts + row.experts) * mixtures
    small = row.model * (2 * row.layers + 1) + 32 * row.heads * row.layers
    return row.model * (vocabulary + matrices) + small


@pytest.mark.parametrize("name", TABLE)
def test_the_file_has_the_rows_sizes(name):
    model, row = load(f"models/{name}.gin").model, TABLE[name]
    sizes = (model.num_layers, model.d_model, model.d_ff, model.num_heads, model.head_dim)
    assert sizes == (row.layers, row.model, row.hidden, row.heads, row.head)
    assert model.num_experts == row.experts
    assert (model.feed_forward, model.position, model.relative_buckets) == (
        "gated_gelu",
        "relative",
        32,
    )
    assert model.moe_every == 2


@pytest.mark.parametrize("name", TABLE)
def test_counts_are_the_closed_form_and_the_papers(name):
    """To the printed digits, but for the vocabulary and the cells that the paper has too low."""
    loaded, row = load(f"models/{name}.gin"), TABLE[name]
    vocabulary = loaded.model.vocab_size
    assert loaded.router.capacity_factor == 2.0
    counted = loaded.parameters()
    assert counted.total == closed_form(row, vocabulary, row.experts)
    assert counted.active == closed_form(row, vocabulary, 2)

    extra = (vocabulary - COUNTED_VOCABULARY) * row.model if vocabulary == T5_VOCABULARY else 0
    for cell, ours in (("total", counted.total), ("activated", counted.active)):
        theirs, half = printed(getattr(row, cell))
        assert -half <= ours - extra - theirs <= half + LOW.get((name, cell), 0), cell


def test_the_largest_needs_the_texts_vocabulary():
    """GLaM's 96.6B activated with 256K; with 32,000, which its small models have, 94.8B."""
    row = TABLE["glam_64b_64e"]
    assert f"{closed_form(row, 256_000, 2) / 1e9:.1f}" == "96.6"
    assert f"{closed_form(row, COUNTED_VOCABULARY, 2) / 1e9:.1f}" == "94.8"
    small = TABLE["glam_1_7b_64e"]
    assert f"{closed_form(small, COUNTED_VOCABULARY, 2) / 1e9:.3f}" == "1.879"
    assert f"{closed_form(small, 256_000, 2) / 1e9:.3f}" == "2.338"


def test_gpt2_medium_against_the_published_model():
    """354,823,168 parameters published (openai-community/gpt2-medium), of which ours has neither
    the 1,024 learned positions nor biases: in a layer D for each of query, key, value, the two
    outputs and the two norms, and 4 D for the hidden units; D for the last norm.
    """
    model = load("models/gpt2_medium_dense.gin").model
    width, layers = 1024, 24
    missing = 1024 * width + 11 * width * layers + width
    ours = dataclasses.replace(model, vocab_size=50_257, position="rotary")
    assert 354_823_168 - missing == count_parameters(ours, 0).total


def test_adaptive_gatings_model_is_gpt2_with_16_experts_in_every_layer():
    dense = load("models/gpt2_medium_dense.gin").model
    described = load("models/gpt2_medium_16e.gin", "routers/adaptive.gin")
    assert dataclasses.replace(described.model, num_experts=0, moe_every=2) == dense
    assert described.model.num_moe_layers == 24
    expert, routers = 2 * 1024 * 4096, 24 * 1024 * 16
    counted = described.parameters()
    plain = load("models/gpt2_medium_dense.gin").parameters().total
    assert counted.total == plain + 24 * 15 * expert + routers
    assert counted.active == plain + 24 * expert + routers


def test_only_mixtures_in_every_layer_reach_adaptive_gatings_flops():
    """Li et al. 2023, table 3, text completion: top-2 gating has 4.9T, top-1 and dense 3.4T."""
    model = load("models/gpt2_medium_16e.gin").model
    lowest = 4.85 / 3.45

    def ratio(every):
        changed = dataclasses.replace(model, moe_every=every)
        two, one = (train_flops_per_token(changed, k, 1024) for k in (2, 1))
        return two / one

    assert ratio(1) > lowest > 4 / 3 > ratio(2)


@pytest.mark.parametrize("name", [n for n in MODELS if n not in OTHERS])
def test_every_file_is_held_by_a_test_and_says_where_it_is_from(name):
    short = name.removeprefix("models/").removesuffix(".gin")
    assert short in TABLE or short.startswith("gpt2_medium")
    first = (config.config_root() / name).read_text().splitlines()[0]
    assert first.startswith("# ")
    assert "2022" in first or "2023" in first


@pytest.fixture
def counted_tokens(monkeypatch):
    """Stands in for counting the tokens of C4, which is not here."""
    monkeypatch.setattr(input_pipeline, "count_tokens", lambda data, batches: (1,) * T5_VOCABULARY)


# Elements of all parameters by model and what they depend on: whether the router learns.
SIZES = {}


def size_of_arrays(described):
    """Returns the elements of an experiment's parameters, which are made as shapes only."""
    key = (described.model, described.active_router and described.active_router.is_learned)
    if key not in SIZES:
        shapes = described.language_model().abstract().params
        SIZES[key] = sum(math.prod(leaf.shape) for leaf in shapes.values())
    return SIZES[key]


@pytest.mark.parametrize("model", mostly_slow(MODELS, 3))
def test_every_model_with_every_router(model, counted_tokens):
    """The experiment is built, and its arrays, as shapes only, are those that are counted."""
    dense = load(model).model.num_experts == 0
    for router in ROUTERS:
        if dense and router == "routers/topk_shared_grouped.gin":
            with pytest.raises(UserError, match="a dense model has no experts to share"):
                load(model, router)
            continue
        described = load(model, router)
        assert (described.active_router is None) == dense
        assert size_of_arrays(described) == described.parameters().total, router


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_has_its_state_in_a_model_of_the_paper(router, counted_tokens):
    """One model, whose arrays are shapes only, with the state of every router."""
    described = load("models/100m_16e.gin", router)
    state = described.language_model().abstract().router_state
    assert all(leaf.shape[0] == described.model.num_moe_layers for leaf in state.values())
