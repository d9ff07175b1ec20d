"""One run from a volume to its map: planned, cut into blocks, computed, stored, recorded, and gone on with."""
