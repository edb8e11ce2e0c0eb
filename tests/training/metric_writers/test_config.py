"""Settings of the writers."""

import pytest

from moe_jax.errors import UserError
from moe_jax.training.metric_writers.config import WriterConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensorboard": "yes"}, "tensorboard must be True or False, not 'yes'"),
        ({"wandb_project": " "}, "wandb_project must be a name"),
        ({"wandb_project": 3}, "wandb_project must be a name"),
        ({"wandb_name": "one"}, "wandb_name needs Writers.wandb_project"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        WriterConfig(**settings)
