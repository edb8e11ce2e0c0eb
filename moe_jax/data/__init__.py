"""Text to batches: seqio tasks, vocabularies, packing, iterators that resume.

Importing this package imports neither seqio nor TensorFlow; `moe_jax.data.pipeline.input_pipeline` does.
"""

from moe_jax.data.import_tensorflow import put_keras_off

put_keras_off()
