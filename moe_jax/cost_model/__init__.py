"""Cost of a compiled training step on TPU: memory, HBM traffic, communication and step time."""
