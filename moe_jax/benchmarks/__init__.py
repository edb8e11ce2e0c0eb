"""Benchmarks on this machine, reported as ratios of cases timed in the same run."""
