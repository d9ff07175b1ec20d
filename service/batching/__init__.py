"""Tiles of many requests on one device: a bounded, fair queue, and the batches that are made of it."""
