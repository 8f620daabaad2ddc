# The service on a CPU, by OpenVINO: docker build -t vsr . && docker run --rm -p 127.0.0.1:5000:5000 vsr
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
# PyTorch's own index has builds without CUDA, which are a tenth of the size.
RUN python -m venv /opt/vsr \
    && /opt/vsr/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu 'torch>=2.6,<2.14'
COPY pyproject.toml README.md LICENSE ./
COPY vsr ./vsr
RUN /opt/vsr/bin/pip install --no-cache-dir '.[cpu,serve]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/vsr /opt/vsr
# All that is written lies in /data: jobs, uploads, results, prepared networks. The root may be read-only.
RUN useradd --uid 10001 --no-create-home --home-dir /data vsr \
    && install -d -o vsr -g vsr -m 0700 /data
ENV PATH=/opt/vsr/bin:$PATH \
    HOME=/data \
    VSR_STATE=/data/state \
    VSR_ENGINES=/data/engines \
    OMP_WAIT_POLICY=PASSIVE \
    PYTHONDONTWRITEBYTECODE=1 \
    GRADIO_ANALYTICS_ENABLED=False
USER 10001
VOLUME /data
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health/ready', timeout=4)"]
# Who reaches the container is settled by the port that is published; VSR_TOKEN asks clients for a token.
ENTRYPOINT ["vsr", "serve", "--host", "0.0.0.0", "--port", "5000", "--allow-public"]
