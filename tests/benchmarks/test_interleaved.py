"""Times of cases relative to a reference that runs right before."""

from moe_jax.benchmarks import interleaved


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
