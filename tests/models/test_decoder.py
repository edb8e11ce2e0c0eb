"""The decoder: identities that must hold whatever the numbers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import mostly_slow

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool
from moe_jax.training.step import forward


def logits_of(model, variables, batch):
    def run(variables, batch):
        output = forward(model, variables, batch)
        return model.bind(variables).logits(output.hidden_BSD)

    return np.asarray(jax.jit(run)(variables, batch))


@pytest.mark.parametrize(
    "router",
    [ExpertChoice(1.0, Pool("sequence")), TokenChoice(k=1, normalise=False)],
    ids=lambda router: router.name,
)
@pytest.mark.parametrize("dispatch", mostly_slow(["grouped", "gather"]))
def test_one_expert_is_the_dense_model(dispatch, router):
    """Law 8: E = 1 routes every token to the one expert with weight 1."""
    shape = {"feed_forward": "gelu", "dispatch": dispatch}
    moe = LanguageModel(tiny.config(num_experts=1, **shape), router)
    dense = LanguageModel(tiny.config(num_experts=0, **shape), None)
    variables = moe.init(jax.random.key(3))

    def interleaved(suffix_moe, suffix_dense):
        first = variables.params[f"groups/layers/0/{suffix_moe}"]
        second = variables.params[f"groups/layers/1/{suffix_dense}"]
        first = first.reshape(second.shape)
        return jnp.stack([first, second], axis=1).reshape(4, *second.shape[1:])

    params = {}
    for name in dense.abstract().params:
        suffix = name.removeprefix("groups/layers/0/")
        if suffix == name:
            params[name] = variables.params[name]
        elif suffix in ("ffn/wi", "ffn/wo"):
            params[name] = interleaved(suffix.replace("ffn/", "ffn/experts/"), suffix)
        else:
            params[name] = interleaved(suffix, suffix)
    batch = tiny.make_batch(2, 16)
    np.testing.assert_allclose(
        logits_of(moe, variables, batch),
        logits_of(dense, Variables(params, {}), batch),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("router", [ExpertChoice(2.0), TokenChoice()], ids=lambda r: r.name)
def test_shared_experts_are_a_dense_feed_forward_beside(router):
    """With routed experts that give 0, the model is a dense one of as many times d_ff."""
    shape = {"num_layers": 2, "moe_every": 1}
    moe = LanguageModel(tiny.config(num_shared_experts=2, **shape), router)
    plain = LanguageModel(tiny.config(**shape), router)
    dense = LanguageModel(
        tiny.config(num_experts=0, feed_forward="gelu", d_ff=2 * 48, **shape), None
    )
    variables, batch = moe.init(jax.random.key(3)), tiny.make_batch(2, 16)
    params, state = variables.params, variables.router_state
    routed, shared = "groups/layers/0/ffn/experts/wo", "groups/layers/0/ffn/shared/"

    silent = Variables(params | {routed: 0 * params[routed]}, state)
    of_dense = {n.replace("/shared/", "/"): a for n, a in params.items()}
    of_dense = {n: of_dense[n] for n in dense.abstract().params}
    np.testing.assert_allclose(
        logits_of(moe, silent, batch),
        logits_of(dense, Variables(of_dense, {}), batch),
        rtol=1e-5,
        atol=1e-5,
    )
    # And with shared ones that give 0, it is the model without.
    off = Variables(params | {f"{shared}wo": 0 * params[f"{shared}wo"]}, state)
    of_plain = Variables({n: a for n, a in params.items() if shared not in n}, state)
    without = logits_of(plain, of_plain, batch)
    np.testing.assert_allclose(logits_of(moe, off, batch), without, rtol=1e-5, atol=1e-5)
    assert np.abs(logits_of(moe, variables, batch) - without).max() > 0.1


@pytest.mark.parametrize("kind", mostly_slow(["batch", "sequence", "position"]))
def test_scanned_equals_unrolled(kind):
    router = ExpertChoice(2.0, Pool(kind))
    scanned, variables = tiny.make(router, scan_layers=True)
    unrolled, _ = tiny.make(router, scan_layers=False)
    batch = tiny.make_batch(4, 8)
    expected = logits_of(unrolled, variables, batch)
    # A logit near 0 is a sum of terms as large as the largest: it is right to four units in the
    # last place of those.
    np.testing.assert_allclose(
        logits_of(scanned, variables, batch),
        expected,
        rtol=1e-5,
        atol=4 * np.finfo(np.float32).eps * np.abs(expected).max(),
    )


def test_padding_at_the_end_changes_nothing_before_it():
    model, variables = tiny.make(ExpertChoice(2.0, Pool("sequence")))
    short = tiny.make_batch(2, 8)
    pad = ((0, 0), (0, 8))
    long = Batch(*(np.pad(a, pad) for a in (short.inputs_BS, short.targets_BS, short.weights_BS)))
    np.testing.assert_allclose(
        logits_of(model, variables, long)[:, :8],
        logits_of(model, variables, short),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.slow
def test_packed_documents_do_not_see_each_other():
    """Two documents in a row give the logits of each alone (causal routing: no shared pool)."""
    model, variables = tiny.make(ExpertChoice(2.0))
    causal = model.causal()
    a, b = tiny.make_batch(1, 6, seed=1), tiny.make_batch(1, 10, seed=2)
    packed = Batch(
        *(
            np.concatenate([getattr(a, f), getattr(b, f)], 1)
            for f in ("inputs_BS", "targets_BS", "weights_BS")
        ),
        positions_BS=np.concatenate([np.arange(6), np.arange(10)])[None],
        segments_BS=np.array([[1] * 6 + [2] * 10]),
    )
    together = logits_of(causal, variables, packed)
    np.testing.assert_allclose(
        together[:, :6], logits_of(causal, variables, a), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        together[:, 6:], logits_of(causal, variables, b), rtol=1e-5, atol=1e-6
    )


def test_parameters_and_logits_are_float32_in_a_bfloat16_model():
    model, variables = tiny.make(ExpertChoice(2.0), compute_dtype="bfloat16")
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    batch = tiny.make_batch(2, 8)
    half = logits_of(model, variables, batch)
    assert half.dtype == np.float32
    full = logits_of(LanguageModel(tiny.config(), model.router), variables, batch)
    assert 0 < np.abs(half - full).mean() < 0.05


@pytest.mark.slow
def test_initial_kernels_have_fan_in_variance():
    _, variables = tiny.make(ExpertChoice(2.0), d_model=64, d_ff=256)
    wo = variables.params["groups/layers/0/ffn/experts/wo"]
    assert wo.shape == (2, 4, 64, 256)
    np.testing.assert_allclose(np.std(wo), 256**-0.5, rtol=0.02)
    # No layer and no expert is a copy of another.
    assert len(np.unique(np.asarray(wo).round(7))) > 0.9 * wo.size / 2


def test_logical_axes_name_every_axis():
    model, variables = tiny.make(ExpertChoice(2.0))
    axes = model.logical_axes()
    assert set(axes) == set(variables.params)
    for name, array in variables.params.items():
        assert len(axes[name]) == array.ndim, name


def test_experts_need_a_router():
    with pytest.raises(UserError, match="needs a router"):
        LanguageModel(tiny.config(), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 3}, "not a multiple of"),
        ({"d_model": 0}, "d_model must be a whole number above 0"),
        ({"position": "relativ"}, "Did you mean 'relative'"),
        ({"remat": "ful"}, "Did you mean 'full'"),
        ({"compute_dtype": "float16"}, "known: float32, bfloat16"),
        ({"position": "rotary", "head_dim": 15}, "even Model.head_dim"),
        ({"remat": "named", "remat_names": ("moe_inn",)}, "Did you mean 'moe_in'"),
        ({"num_experts": -1}, "0 \\(dense\\) or more"),
        ({"num_shared_experts": -1}, "num_shared_experts must be a whole number, 0 .none. or more"),
        ({"num_experts": 0, "num_shared_experts": 1}, "has no experts to share"),
    ],
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        tiny.config(**change)
