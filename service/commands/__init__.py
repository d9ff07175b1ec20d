"""The commands of ``emboundary`` that serve, ask a service, and look at what is installed: one module each."""
