"""The input pipeline: from a seqio task to batches, in training order or for an evaluation."""
