"""How a network learns: losses, the loop, its state and what a run leaves."""
