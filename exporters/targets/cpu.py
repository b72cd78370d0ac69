"""ONNX Runtime >= 1.24 on any processor, or its CUDA provider."""

DIALECT = "standard"
PRECISION = "fp32"
