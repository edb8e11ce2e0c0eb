"""Reading of XLA programs in HLO text: structure, loops, collectives and FLOPs."""
