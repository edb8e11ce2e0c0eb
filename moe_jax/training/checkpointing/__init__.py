"""Save and restore checkpoints, and verify what is restored."""
