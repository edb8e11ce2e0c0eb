"""Observe a run: progress, throughput, goodput, profiles and hardware utilisation."""
