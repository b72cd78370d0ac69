# alm with TensorRT 10.16 on a Jetson Orin or Thor of JetPack 7.2 (Ubuntu 24.04, Python 3.12, CUDA 13.2).
#
#     docker build -f docker/jetpack7.Dockerfile -t alm-edge:jetpack7 .      # on the Jetson
#     docker run --rm --gpus all --entrypoint python alm-edge:jetpack7 \
#         -c 'import tensorrt; print(tensorrt.__version__)'
#
# There is no l4t base of JetPack 7: it is Ubuntu with a CUDA of its own, and the driver's libraries
# come in when a container runs. TensorRT is the Jetson repository's, of the build that JetPack has;
# CUDA's own repository has another.

FROM nvcr.io/nvidia/cuda:13.2.1-base-ubuntu24.04
ARG TENSORRT=10.16.2.10-1+cuda13.2
ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /usr/share/keyrings/jetson.asc
# compat/ holds drivers of graphics cards, which would stand before the Jetson's.
RUN rm -rf /usr/local/cuda/compat /usr/local/cuda-13.2/compat \
    && chmod 644 /usr/share/keyrings/jetson.asc \
    && echo "deb [signed-by=/usr/share/keyrings/jetson.asc] https://repo.download.nvidia.com/jetson/common r39.2 main" \
        > /etc/apt/sources.list.d/alm-jetson.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends \
        python3.12-venv libnvinfer10=$TENSORRT libnvinfer-plugin10=$TENSORRT \
        libnvonnxparsers10=$TENSORRT python3-libnvinfer=$TENSORRT \
    && rm -rf /var/lib/apt/lists/*
COPY docker/jetpack7.txt /tmp/
COPY dist/alm_edge-*.whl /tmp/
# The environment sees the system's packages, of which TensorRT's is one.
RUN python3.12 -m venv --system-site-packages /opt/alm \
    && /opt/alm/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes --ignore-installed -r /tmp/jetpack7.txt \
    && /opt/alm/bin/pip install --no-cache-dir --no-deps --no-index /tmp/alm_edge-*.whl \
    && /opt/alm/bin/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("tensorrt"))' \
    && rm -rf /tmp/jetpack7.txt /tmp/alm_edge-*.whl
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
