"""Long training of several models in turns, that anything may interrupt and that can be annealed at any moment."""
