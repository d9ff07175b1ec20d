"""Learning to classify whole images: the papers' own experiments, on the same loop as segmenters."""
