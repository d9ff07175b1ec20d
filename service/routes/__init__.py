"""HTTP routes: they translate between requests and the rest of the service, and compute nothing."""
