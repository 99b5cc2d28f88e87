# Three images from one file: `--target gateway`, `--target target`, `--target draft`.
#   BASE_IMAGE   Python >= 3.11 with pip and venv
#   TORCH_INDEX  a wheel index with CPU builds of torch; without it PyPI's build comes, with CUDA, several GB
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
# No pip of its own: the base image's installs into it from outside.
RUN python3 -m venv --without-pip /opt/venv && useradd --create-home outrider
WORKDIR /app
COPY pyproject.toml ./
# Prints the requirements of the project and of one extra.
RUN printf '%s\n' 'import sys, tomllib' \
    'project = tomllib.load(open("pyproject.toml", "rb"))["project"]' \
    'print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")' > requirements.py

FROM base AS model
ARG TORCH_INDEX=
RUN pip --python /opt/venv install --no-cache-dir --no-compile ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==2.13.0
RUN python requirements.py model > requirements.txt \
    && pip --python /opt/venv install --no-cache-dir --no-compile -r requirements.txt
COPY shared shared
RUN python -c "from pathlib import Path; from shared.model.toy_pair import make_toy_pair; make_toy_pair(Path('/models/toy'))" \
    && chmod -R a+rX /models

FROM model AS target
COPY target_service target_service
USER outrider
CMD ["python", "-m", "target_service"]

FROM model AS draft
COPY draft_service draft_service
USER outrider
CMD ["python", "-m", "draft_service"]

FROM base AS gateway
# Less what the gateway never imports: transformers' models, which want torch (but for one, without which it does not
# open), and the hub's accelerator. In the same layer, or nothing would be saved.
RUN python requirements.py gateway > requirements.txt \
    && pip --python /opt/venv install --no-cache-dir --no-compile -r requirements.txt \
    && pip --python /opt/venv uninstall --yes hf_xet \
    && find /opt/venv/lib/python3*/site-packages/transformers/models -mindepth 1 -maxdepth 1 ! -name auto -exec rm -r {} +
COPY shared/*.py shared/
COPY shared/pb shared/pb
COPY gateway gateway
COPY --from=model /models/toy/target/*.json /models/toy/target/*.jinja /models/toy/target/
USER outrider
# Proves that nothing is missing.
RUN python -m gateway --help > /dev/null && python -c "from gateway.schemas import Message; \
from gateway.tokenizer import ChatTokenizer; \
tokenizer = ChatTokenizer.load('/models/toy/target'); \
tokenizer.encode_chat([Message(role='user', content='What is a token?')])"
CMD ["python", "-m", "gateway"]
