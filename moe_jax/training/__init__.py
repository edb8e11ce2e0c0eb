"""Train a model: step, loss, optimisers, loop, checkpoints, and observation of a run."""
