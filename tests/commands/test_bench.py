"""`moe-jax bench routing` and `adaptive`: what they print and what other programs rely on."""

import json

import optax
import pytest
import tiny
from tiers import mostly_slow

from moe_jax import cli
from moe_jax.benchmarks import interleaved, layer, train_step
from moe_jax.benchmarks.profile import scopes_of_instructions
from moe_jax.benchmarks.routing import expert_flops
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, make_train_step


def run(capsys, *arguments):
    """Returns the exit code, and standard output and error."""
    code = cli.main(["bench", *arguments])
    return code, *capsys.readouterr()


def test_routing_rows(capsys):
    arguments = ("routing", "--size=XS", "--routers=expert_choice,switch", "--rounds=2", "--json")
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    rows = json.loads(out.splitlines()[-1])["rows"]
    names = [(row["router"], row["dispatch"]) for row in rows]
    assert names == [(r, d) for r in ("expert_choice", "switch") for d in ("grouped", "gather")]
    for row in rows:
        assert row["seconds"] > 0
        assert row["ratio_to_dense"] > 0
        active = 2 if row["router"] == "expert_choice" else 1
        assert row["flops"] == active * 3 * 2 * 2 * 512 * 32 * 64
    assert "expert_choice" in out


@pytest.mark.slow
def test_adaptive_rows(capsys):
    code, out, _ = run(capsys, "adaptive", "--size=XS", "--rounds=2", "--json")
    assert code == 0
    rows = json.loads(out.splitlines()[-1])["rows"]
    shares = [row["top1_share"] for row in rows]
    assert shares == pytest.approx([1.0, 0.8, 0.5, 0.2, 0.0], abs=0.01)
    for row in rows:
        assert row["relative_flops"] == pytest.approx(1 - row["top1_share"] / 2)
    # Table 1 of Li et al. 2023.
    assert [row["paper_time"] for row in rows] == [0.67, 0.76, 0.92, 0.97, 1.0]
    assert [row["paper_flops"] for row in rows] == [0.5, 0.6, 0.75, 0.9, 1.0]
    assert all(row["relative_time"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("routing", "--size=XL"), "unknown size 'XL'; known: XS, S, M, L"),
        (("routing", "--routers=swich"), "unknown router 'swich'"),
        (("routing", "--dispatches=gathr"), "unknown dispatch 'gathr'"),
        (("adaptive", "--dtype=bfloat"), "unknown precision 'bfloat'"),
        (("routing", "--rounds=0"), "--rounds and --steps must be above 0"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert not out
    assert message in err
    assert err.count("\n") == 1


def test_ratios_compare_neighbours_in_time():
    """A machine that turns twice as slow in the middle does not change them."""
    times = interleaved.Times(case=[2.0, 2.0, 4.0, 4.0], reference=[1.0, 1.0, 2.0, 2.0])
    assert times.ratio == 2.0
    assert times.seconds == 3.0


def test_every_case_runs_right_after_its_reference():
    ran = []
    cases = {n: interleaved.Case(lambda n=n: ran.append(n), 0) for n in ("a", "b", "dense")}
    references = dict.fromkeys(cases, cases["dense"])
    times = interleaved.measure({"a": cases["a"], "b": cases["b"]}, references, rounds=2)
    # Each twice, the second time timed.
    assert ran == ["dense", "dense", "a", "a", "dense", "dense", "b", "b"] * 2
    assert len(times["a"].case) == len(times["b"].reference) == 2


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", mostly_slow(["grouped", "gather"]))
def test_every_printed_part_of_a_step_is_found_in_the_program(dispatch):
    model, _ = tiny.make(ExpertChoice(), dispatch=dispatch)
    optimizer, batch = Optimizer(optax.sgd(0.1), lambda step: 0.1), tiny.make_batch(2, 16)
    step = make_train_step(model, optimizer, LossConfig(), accumulation=1, seed=0)
    hlo = step.lower(make_state(model, optimizer, seed=0), batch).compile().as_text()
    found = scopes_of_instructions(hlo, list(train_step.SCOPES))
    assert set(found.values()) == {*train_step.SCOPES, "other"}


def test_counted_flops_are_the_compilers():
    """Of the dense layer with the FLOPs of one expert, by XLA's own account."""
    import jax

    size = layer.SIZES["XS"]
    x, dy, _ = layer.random_inputs(size, "float32")
    params = layer.dense_parameters(size, 1.0, "float32")
    compiled = jax.jit(layer.step_of(layer.dense)).lower(params, x, dy).compile()
    counted = compiled.cost_analysis()["flops"]
    # The compiler also counts what is done elementwise, some tens of operations a hidden unit.
    elementwise = 60 * size.tokens * size.hidden
    assert expert_flops(size) <= counted <= expert_flops(size) + elementwise
