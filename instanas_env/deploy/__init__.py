"""Networks as ONNX graphs, and what runs them: a mask's network by itself, or all of InstaNAS in one file."""
