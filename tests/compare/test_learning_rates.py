import math

import pytest
from synthetic_studies import run_record

from moe_jax.compare.learning_rates import choose_rate
from moe_jax.compare.records import Curve


def trial(rate, loss, outcome="finished"):
    curve = Curve((10, 20), (9.0, 9.0), (5.0, loss))
    return run_record(learning_rate=rate, curve=curve, outcome=outcome, role="rate_trial")


def test_lowest_causal_loss():
    found = choose_rate([trial(0.02, 3.2), trial(0.01, 3.0), trial(0.005, 3.1)])
    assert found.losses == pytest.approx({0.005: 3.1, 0.01: 3.0, 0.02: 3.2})
    assert list(found.losses) == [0.005, 0.01, 0.02]
    assert (found.chosen, found.at_edge) == (0.01, False)


@pytest.mark.parametrize("best", [0.005, 0.02])
def test_edge(best):
    losses = {0.005: 3.1, 0.01: 3.1, 0.02: 3.1, best: 3.0}
    assert choose_rate([trial(rate, loss) for rate, loss in losses.items()]).at_edge


def test_one_rate_has_no_edge():
    assert not choose_rate([trial(0.01, 3.0)]).at_edge


def test_a_diverged_trial_is_infinite():
    found = choose_rate([trial(0.02, 1.0, "diverged"), trial(0.01, 3.0)])
    assert found.losses[0.02] == math.inf
    assert found.chosen == 0.01


def test_unfinished_trials_do_not_count():
    with pytest.raises(ValueError, match="no trial"):
        choose_rate([trial(0.01, 3.0, "unfinished")])
