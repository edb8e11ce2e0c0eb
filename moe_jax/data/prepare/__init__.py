"""Converts data sets' original files (TSV, JSON, text; plain or .gz) to TFDS directories, offline.

`known_datasets` lists the data sets with their files and readers; the readers yield (key, example)
pairs; `prepare_dataset` writes them with the official TFDS builder's features into a temporary
directory and moves that to its final path. TensorFlow is imported only when examples are written.
"""
