"""seqio tasks: their names, vocabularies, preprocessors, postprocessors and metrics.

Only `registry`, `objectives`, `vocabulary` and the task definitions import TensorFlow.
"""
