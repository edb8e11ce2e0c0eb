"""Data sets' original files (TSV, JSON, text; plain or .gz) to TFDS directories, with no network.

`prepare` in moe_jax/data/prepare/prepare_dataset.py does it. catalog.py says which files a data set is in
and who reads them; the readers yield (key, example) pairs; write.py passes them through the
official TFDS builder's own features into a temporary directory and moves that into place.
Nothing here imports TensorFlow before a data set is written.
"""
