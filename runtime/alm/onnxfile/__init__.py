"""The bytes of an .onnx file, read without the onnx package."""
