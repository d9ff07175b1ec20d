"""The Open Inference Protocol v2 (KServe): its JSON, its tensors, its errors."""
