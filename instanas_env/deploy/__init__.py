"""Deployment: child networks as ONNX graphs, one file that is the whole of InstaNAS, and what runs them."""
