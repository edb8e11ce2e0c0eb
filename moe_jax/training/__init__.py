"""Turn a model and a stream of batches into a trained checkpoint."""
