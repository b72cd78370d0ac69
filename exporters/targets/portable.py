"""Any runtime that knows opset 20: older ONNX Runtimes, TensorRT 10.3, converters."""

DIALECT = "decomposed"
PRECISION = "fp32"
ENGINES = ()  # whose own operators may be used
AUTO = {
    "frontend": "fp32",
    "encoder": "fp16",
    "bridge": "fp16",
    "decoder": "fp16",
    "table": "fp16",
}
