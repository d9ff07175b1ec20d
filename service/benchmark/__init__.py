"""``emboundary benchmark``: how fast a model runs here, beside what the device itself could do."""
