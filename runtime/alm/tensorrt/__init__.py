"""TensorRT: engines built, profiles, its Python API, and ONNX Runtime's providers of it."""
