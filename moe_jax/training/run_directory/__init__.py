"""The run directory: its files, its lock, and what changed since the run began."""
