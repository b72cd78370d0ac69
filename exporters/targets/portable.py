"""Any runtime that knows opset 20: older ONNX Runtimes, TensorRT 10.3, converters."""

DIALECT = "decomposed"
PRECISION = "fp32"
