"""NVIDIA GPUs as seen from this process: the driver, the libraries that ONNX Runtime needs, and what is missing.

Nothing here needs a GPU, and nothing needs ONNX Runtime where it does not ask about ONNX Runtime.
"""
