# alm with TensorRT 10.3 on a Jetson Orin of JetPack 6.2 (Ubuntu 22.04, Python 3.10, CUDA 12.6).
#
#     docker build -f docker/jetpack6.Dockerfile -t alm-edge:jetpack6 .      # on the Jetson
#     docker run --rm --runtime nvidia --entrypoint python alm-edge:jetpack6 \
#         -c 'import tensorrt; print(tensorrt.__version__)'
#
# The base has CUDA and TensorRT's libraries; its Python package is from the Jetson's own repository,
# of the same build. `import tensorrt` works in a container that runs, not while it is built: the
# driver's libraries come in with --runtime nvidia.

FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime
ARG TENSORRT=10.3.0.30-1+cuda12.5
ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /usr/share/keyrings/jetson.asc
RUN chmod 644 /usr/share/keyrings/jetson.asc \
    && echo "deb [signed-by=/usr/share/keyrings/jetson.asc] https://repo.download.nvidia.com/jetson/common r36.4 main" \
        > /etc/apt/sources.list.d/alm-jetson.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends --allow-downgrades --allow-change-held-packages \
        python3.10-venv libnvinfer10=$TENSORRT libnvinfer-plugin10=$TENSORRT \
        libnvonnxparsers10=$TENSORRT python3-libnvinfer=$TENSORRT \
    && rm -rf /var/lib/apt/lists/*
COPY docker/jetpack6.txt /tmp/
COPY dist/alm_edge-*.whl /tmp/
# The environment sees the system's packages, of which TensorRT's is one.
RUN python3.10 -m venv --system-site-packages /opt/alm \
    && /opt/alm/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes --ignore-installed -r /tmp/jetpack6.txt \
    && /opt/alm/bin/pip install --no-cache-dir --no-deps --no-index /tmp/alm_edge-*.whl \
    && /opt/alm/bin/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("tensorrt"))' \
    && rm -rf /tmp/jetpack6.txt /tmp/alm_edge-*.whl
# `video` may open the GPU's devices; `docker run --group-add` gives the host's `render`.
RUN useradd --create-home --uid 10001 --groups video alm && install -d -o alm -g alm /home/alm/.cache
ENV PATH=/opt/alm/bin:$PATH PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all
USER alm
WORKDIR /home/alm
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["alm"]
CMD ["serve", "/model", "--host", "0.0.0.0", "--provider", "tensorrt"]
