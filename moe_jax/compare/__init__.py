"""Comparison of routers: studies of several runs, the statistics, and the report."""
