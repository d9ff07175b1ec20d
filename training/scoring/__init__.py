"""From maps to segmentations, and what scores are counted from."""
