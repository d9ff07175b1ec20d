"""The client of the HTTP service, for scripts and for ``emboundary client``."""
