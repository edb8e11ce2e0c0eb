"""Decide which token goes to which expert: pure functions from scores to assignments."""
