"""Data: sources, seqio tasks, the input pipeline, and preparation of data sets.

Imports point one way: `prepare` and `pipeline` may import `tasks` and `sources`, `tasks` may import
`sources`. Importing this package imports neither seqio nor TensorFlow.
"""

from moe_jax.data.import_tensorflow import defer_keras

defer_keras()
