"""End a run in order: signals, preemption notices and hangs."""
