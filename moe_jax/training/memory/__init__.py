"""Estimate the memory of training and compare it with what is available."""
