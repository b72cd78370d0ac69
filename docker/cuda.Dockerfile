# alm on an NVIDIA GPU of an x86_64 machine, by ONNX Runtime's CUDA provider.
#
#     make wheel && docker build -f docker/cuda.Dockerfile -t alm-edge:cuda .
#     docker run --rm --gpus all -p 8000:8000 -e ALM_API_KEY -v "$PWD/artifacts:/model:ro" alm-edge:cuda
#
# CUDA 13 and cuDNN are pip's, as docs/gpu.md says, so the base needs none of them. The machine needs
# a driver of CUDA 13 and the NVIDIA Container Toolkit.

FROM python:3.12.13-slim-bookworm AS build
COPY docker/cuda.txt /tmp/
COPY dist/alm_edge-*.whl /tmp/
RUN python -m venv /opt/alm \
    && /opt/alm/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r /tmp/cuda.txt \
    && /opt/alm/bin/pip install --no-cache-dir --no-deps --no-index /tmp/alm_edge-*.whl \
    && /opt/alm/bin/pip check \
    && /opt/alm/bin/pip uninstall --yes pip

FROM python:3.12.13-slim-bookworm
COPY --from=build /opt/alm /opt/alm
RUN useradd --create-home --uid 10001 alm && install -d -o alm -g alm /home/alm/.cache
ENV PATH=/opt/alm/bin:$PATH PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER alm
WORKDIR /home/alm
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["alm"]
CMD ["serve", "/model", "--host", "0.0.0.0", "--provider", "cuda"]
