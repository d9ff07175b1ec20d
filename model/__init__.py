"""The networks: what they are, how they are described, how they become ONNX files.

Floor 0 (``geometry``, ``description``, ``groups``, ``repository``, ``scores``) needs numpy and pydantic
only, so that serving never imports torch; the other modules are the torch floor.
"""
