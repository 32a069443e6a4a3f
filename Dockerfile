# Serves pipelines/query.yaml over HTTP by hayhooks, without torch:
#   docker build -t ask .
#   docker run -p 1416:1416 -v ./models:/srv/models:ro -v ./index:/srv/index ask
#   curl -X POST localhost:1416/query/run -H 'Content-Type: application/json' -d '{"query": "...", "top_k": 5, "filters": null}'
# models/minilm-2-layers needs an onnx or openvino export beside it, or is a token table (docs/performance.md).
FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /venv
COPY pyproject.toml README.md LICENSE.txt ./
COPY haystack_distill haystack_distill
COPY haystack_integrations haystack_integrations
COPY pipelines pipelines
# Your store's package in the place of qdrant-haystack, if it is another.
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check ".[onnx,server]" qdrant-haystack
RUN /venv/bin/pip check && ! /venv/bin/python -c "import torch"

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH HF_HUB_OFFLINE=1 HAYSTACK_TELEMETRY_ENABLED=False TOKENIZERS_PARALLELISM=false
RUN useradd --system --uid 10001 --create-home server && mkdir -p /srv/index && chown server /srv/index
COPY --from=build /venv /venv
COPY pipelines/query.yaml /srv/pipelines/query.yaml
WORKDIR /srv
USER server
EXPOSE 1416
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:1416/status')"]
CMD ["hayhooks", "run", "--host", "0.0.0.0", "--pipelines-dir", "/srv/pipelines"]
