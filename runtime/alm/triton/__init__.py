"""A folder as a model repository of NVIDIA's Triton Inference Server: written here, answered there.

`repository` writes it, `onnx_models`, `ensemble` and `python_config` say what stands in its
configurations. In the server `python_model` is the file that Triton runs; what it does is in
`answering`, `requests` and `front`, of the alm-edge that is installed there.
"""
