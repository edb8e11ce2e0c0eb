"""The result as JSON."""

import dataclasses
import json
import math

from sample_comparison import sample_comparison

from moe_jax.compare.report import json_summary
from moe_jax.compare.results import Estimate


def test_the_keys_and_values():
    found = json_summary(sample_comparison())
    assert (found["baseline"], found["matched_by"]) == ("switch", "flops")
    assert list(found["routers"]) == ["switch", "ec_sequence", "ec_threshold", "dense"]
    router = found["routers"]["ec_sequence"]
    assert (router["loss"], router["causal_loss"], router["seeds"]) == (3.237, 3.391, 5)
    assert router["loss_low"] < 3.237 < router["loss_high"]
    assert router["causal_loss_low"] < 3.391 < router["causal_loss_high"]
    assert (router["speedup"], round(router["speedup_low"], 2)) == (1.43, 1.34)
    baseline = found["routers"]["switch"]
    assert [baseline[f"speedup{end}"] for end in ("", "_low", "_high")] == [1.0, None, None]
    assert (found["aa"]["speedup"], found["can_tell"]) == (1.02, True)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_is_unknown_is_null():
    comparison = sample_comparison()
    dense = dataclasses.replace(
        comparison.arms["dense"], loss=Estimate(math.nan, None, math.inf, 1), speed_ups={}
    )
    found = json_summary(
        dataclasses.replace(comparison, aa=None, arms={**comparison.arms, "dense": dense})
    )
    router = found["routers"]["dense"]
    assert {router[key] for key in ("loss", "loss_low", "loss_high", "speedup")} == {None}
    assert found["aa"] == {"speedup": None, "speedup_low": None, "speedup_high": None}
