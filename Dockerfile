# Three images from one file: `--target gateway`, `--target target`, `--target draft`.
#   BASE_IMAGE   Python >= 3.11 with pip and venv
#   TORCH_INDEX  a wheel index with CPU builds of torch; without it PyPI's build comes, with CUDA, several GB
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
RUN python3 -m venv /opt/venv && useradd --create-home outrider
WORKDIR /app
COPY pyproject.toml ./
# Prints the requirements of the project and of one extra.
RUN printf '%s\n' 'import sys, tomllib' \
    'project = tomllib.load(open("pyproject.toml", "rb"))["project"]' \
    'print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")' > requirements.py

FROM base AS model
ARG TORCH_INDEX=
RUN pip install --no-cache-dir --no-compile ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==2.13.0
RUN python requirements.py model > requirements.txt && pip install --no-cache-dir --no-compile -r requirements.txt
COPY shared shared
RUN python -c "from pathlib import Path; from shared.model.toy_pair import make_toy_pair; make_toy_pair(Path('/models/toy'))" \
    && chmod -R a+rX /models
ENV HOME=/home/outrider

FROM model AS target
COPY target_service target_service
USER outrider
CMD ["python", "-m", "target_service"]

FROM model AS draft
COPY draft_service draft_service
USER outrider
CMD ["python", "-m", "draft_service"]

FROM base AS gateway-files
RUN python requirements.py gateway > requirements.txt && pip install --no-cache-dir --no-compile -r requirements.txt \
    && pip uninstall --yes pip setuptools && rm -rf /var/lib/apt/lists/*
COPY shared shared
RUN rm -r shared/model
COPY --from=model /models/toy/target/*.json /models/toy/target/*.jinja /models/toy/target/
COPY gateway gateway

# One layer, so that what was removed above takes no room: a small image starts sooner where gateways are scaled.
FROM scratch AS gateway
COPY --from=gateway-files / /
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
WORKDIR /app
USER outrider
CMD ["python", "-m", "gateway"]
