"""Data sources: a user's files, the embedded corpus, and TensorFlow Datasets directories."""
