"""How the networks learn: data, the training loop, scores on held-out sections, the comparison."""
