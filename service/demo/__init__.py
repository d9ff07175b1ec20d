"""The demonstration: the bundled models on the bundled sample, through a service and its client."""
