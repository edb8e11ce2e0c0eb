from etils import epath
from fake_runs import write_run

from moe_jax.compare.fingerprints import resolved_settings
from moe_jax.compare.run_config import describe_model, load_experiment


def experiment(directory, **options):
    path = epath.Path(write_run(directory, **options)) / "config.gin"
    return load_experiment(path, resolved_settings(path.read_text()))


def test_the_sizes_are_those_of_the_experiment(tmp_path):
    for router in ("expert_choice", "gshard", "dense"):
        made = experiment(tmp_path / router, router=router)
        model = describe_model(made, measured_experts=None)
        assert model.parameters == made.parameters().total
        assert model.active_parameters == made.parameters().active
        assert model.flops_per_token == made.train_flops_per_token()


def test_what_is_not_measured_is_what_is_expected(tmp_path):
    made = experiment(tmp_path / "run", router="topk")
    assert describe_model(made, None).slots_per_token == 2.0
    assert describe_model(made, 0.0).slots_per_token == 0.0
    assert describe_model(made, 1.5).slots_per_token == 1.5


def test_padded_slots_are_computed(tmp_path):
    made = experiment(tmp_path / "run", router="switch")
    model = describe_model(made, measured_experts=0.9)
    assert model.slots_per_token == 1.25
    assert model.flops_per_token > made.train_flops_per_token()
