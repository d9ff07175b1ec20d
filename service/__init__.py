"""Serving: volumes in, boundary maps out, on the command line and over HTTP; never with torch."""

import os

# ONNX Runtime tells its makers of every session unless this is set before it is imported; whoever sets it to 0 may.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
