"""The Flax modules of the decoder."""
