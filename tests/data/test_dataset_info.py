"""The table of published data sets agrees with their preparation and the tasks."""

import pytest

from moe_jax.data.dataset_info import DATASETS, num_mixture_examples, versioned
from moe_jax.data.prepare.known_datasets import known_datasets
from moe_jax.data.tasks import catalog


def test_every_data_set_that_can_be_prepared_is_in_the_table():
    specs = known_datasets().values()
    assert {spec.title for spec in specs} == set(DATASETS)
    assert all(spec.version == DATASETS[spec.title].version for spec in specs)


def test_tasks_read_the_versions_of_the_table():
    texts = {name: text for name, text in catalog.PLAIN_TEXTS.items()}
    assert texts.pop("lm1b").source == "lm1b:1.1.0"
    assert texts.pop("pg19").source == "pg19:0.1.1"
    for task in (*texts.values(), *catalog.definitions().values()):
        assert task.source == versioned(task.source.partition(":")[0])


@pytest.mark.parametrize(
    ("dataset", "examples"),
    [
        ("glue/qqp", 363_849),
        ("super_glue/record", 138_854),
        ("super_glue/wsc.fixed", 259),
        ("glue/sst2", 67_349),
        ("squad/v1.1", 87_599),
        ("glue/ax", 0),
    ],
)
def test_mixing_rates_are_t5s(dataset, examples):
    assert num_mixture_examples(dataset) == examples
