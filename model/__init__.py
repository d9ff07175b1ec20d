"""The networks: what they are, how they are described, how they become ONNX files.

Floor 0 (``geometry``, ``description``, ``groups``, ``repository``, ``scores``) needs numpy and pydantic
only, so that serving never imports torch; the other modules are the torch floor.
"""

import os

# ONNX Runtime tells its makers of every session unless this is set before it is imported; whoever sets it to 0 may.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
