"""Serving: volumes in, boundary maps out, on the command line and over HTTP; never with torch."""
