"""One request for a map on its way through the service: received, decoded, queued, computed, encoded, sent."""
