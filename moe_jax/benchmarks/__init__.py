"""Measure on the machine at hand: always ratios of things timed in one run."""
