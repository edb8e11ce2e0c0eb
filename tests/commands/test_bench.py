"""`moe-jax bench routing` and `adaptive`: what they print and what other programs rely on."""

import json

import pytest

from moe_jax import cli


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


@pytest.mark.slow
def test_generate_rows(capsys):
    shape = {"d_model": 16, "num_heads": 2, "head_dim": 8, "d_ff": 32, "num_layers": 2}
    bindings = [f"--gin.Model.{name}={value}" for name, value in shape.items()]
    arguments = ("--batches=1,3", "--tokens=4", "--rounds=2", "--json")
    code, out, _ = run(capsys, "generate", *bindings, *arguments)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert [row["batch"] for row in result["rows"]] == [1, 3]
    assert result["rows"][0]["speed_up"] == 1
    # Two of three parts: (2 c F + E + 3 F) / 6.
    assert result["dense_width"] == round((2 * 2 * 32 + 8 + 3 * 32) / 6)
    assert 0 < result["experts_per_token"] <= 8
    for row in result["rows"]:
        assert row["decode_ratio_low"] <= row["decode_ratio"] <= row["decode_ratio_high"]
        assert 0 < row["tokens_per_second"] < row["decode_tokens_per_second"] * 4 / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--batches=1,x"), "--batches must be numbers above 0, such as 1,8,64"),
        (("generate", "--tokens=1"), "--tokens must be 2 or more, not 1"),
        (("generate", "--gin.Sampling.beams=2"), "needs Sampling.temperature = 0"),
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
