"""Planning of pod runs with the TPU compiler, on a machine without a TPU."""
