"""Data sets of labelled images, for networks that classify."""
