"""What a run on a TPU pod will cost, read from what the TPU's compiler made of it."""
