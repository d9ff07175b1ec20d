"""Experiments: variants of one base configuration, trained alike, scored alike, written down."""
