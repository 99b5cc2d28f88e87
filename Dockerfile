# One file, five images: `--target gateway`, `target`, `draft`, and `target-neuron`, `draft-neuron` for Trainium.
#   BASE_IMAGE    Python >= 3.11 with pip and venv
#   NEURON_IMAGE  for the two last, in the place of it: AWS's deep-learning container with native torch-neuronx,
#                 "PyTorch Training (TorchNeuron)"; its tag is in AWS's gallery
#   TORCH_INDEX   a wheel index with CPU builds of torch; without it PyPI's build comes, with CUDA, several GB
# Labels are the build command's (docs/deploy.md), so that a new revision leaves the layers as they are.
ARG BASE_IMAGE=python:3.11-slim
ARG NEURON_IMAGE=${BASE_IMAGE}

# Where things are installed. Only what is copied from here gets into an image.
FROM ${BASE_IMAGE} AS build
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
# No pip of its own: the base image's installs into it from outside.
RUN python3 -m venv --without-pip /opt/venv
WORKDIR /app
COPY pyproject.toml constraints.txt ./
# Prints the requirements of the project and of the extras that are named.
RUN printf '%s\n' 'import sys, tomllib' \
    'project = tomllib.load(open("pyproject.toml", "rb"))["project"]' \
    'extras = project["optional-dependencies"]' \
    'print(*project["dependencies"], *(line for name in sys.argv[1:] for line in extras[name]), sep="\n")' > requirements.py

FROM build AS build-model
ARG TORCH_INDEX=
RUN pip --python /opt/venv install --no-cache-dir --no-compile --no-deps ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==2.13.0
RUN python requirements.py model int4 > requirements.txt \
    && pip --python /opt/venv install --no-cache-dir --no-compile -c constraints.txt -r requirements.txt
COPY shared shared
RUN python -c "from pathlib import Path; from shared.model.checkpoints.toy_pair import make_toy_pair; make_toy_pair(Path('/models/toy'))" \
    && chmod -R a+rX /models

FROM build AS build-gateway
# Less what the gateway never imports: transformers' models, which want torch (but for one, without which it does not
# open), and the hub's accelerator.
RUN python requirements.py gateway > requirements.txt \
    && pip --python /opt/venv install --no-cache-dir --no-compile -c constraints.txt -r requirements.txt \
    && pip --python /opt/venv uninstall --yes hf_xet \
    && find /opt/venv/lib/python3*/site-packages/transformers/models -mindepth 1 -maxdepth 1 ! -name auto -exec rm -r {} +

# What runs: nobody in particular, who writes to /tmp if anywhere, with nothing to install or build by.
FROM ${BASE_IMAGE} AS runtime
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HOME=/tmp
RUN find / -xdev \( -path '*-packages/pip*' -o -path '*-packages/setuptools*' -o -path '*-packages/wheel*' \
    -o -path '*/bin/pip*' -o -path '*/ensurepip' \) -prune -exec rm -r {} + \
    && ! command -v gcc && ! command -v make && ! python3 -m pip --version 2> /dev/null \
    && useradd --uid 10001 outrider
WORKDIR /app

FROM runtime AS runtime-model
COPY --from=build-model /opt/venv /opt/venv
COPY --from=build-model /models /models
COPY shared shared
# As shared/model/huge_pages.py has it.
ENV GLIBC_TUNABLES=glibc.malloc.hugetlb=1
USER 10001

FROM runtime-model AS target
COPY target_service target_service
CMD ["python", "-m", "target_service"]

FROM runtime-model AS draft
COPY draft_service draft_service
CMD ["python", "-m", "draft_service"]

FROM runtime AS gateway
COPY --from=build-gateway /opt/venv /opt/venv
COPY --from=build-model /models/toy/target/*.json /models/toy/target/*.jinja /models/toy/target/
COPY shared/*.py shared/
COPY shared/pb shared/pb
COPY gateway gateway
USER 10001
# Proves that nothing is missing.
RUN python -m gateway --help > /dev/null && python -c "from gateway.requests.chat import Message; \
from gateway.text.tokenizer import ChatTokenizer; \
tokenizer = ChatTokenizer.load('/models/toy/target'); \
tokenizer.encode_chat([Message(role='user', content='What is a token?')])"
CMD ["python", "-m", "gateway"]

# Without numba, which is for rounded weights on a CPU. AWS's image brings torch and the compiler of the graphs, which are made where they run: both stay as they are, and so
# do the versions that the compiler needs of what constraints.txt would pin.
FROM ${NEURON_IMAGE} AS runtime-neuron
USER root
ENV PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HOME=/tmp
RUN id outrider 2> /dev/null || useradd --uid 10001 outrider
WORKDIR /app
COPY --from=build /app/pyproject.toml /app/requirements.py ./
RUN python -c "import torch; print(f'torch=={torch.__version__}')" > constraints.txt \
    && python requirements.py model | grep -v -e '^torch[^a-z]' -e '^numba' > requirements.txt \
    && python -m pip install --no-cache-dir --no-compile -c constraints.txt -r requirements.txt \
    && rm pyproject.toml requirements.py requirements.txt constraints.txt
COPY shared shared
USER 10001

FROM runtime-neuron AS target-neuron
COPY target_service target_service
RUN python -m target_service --help > /dev/null
CMD ["python", "-m", "target_service"]

FROM runtime-neuron AS draft-neuron
COPY draft_service draft_service
RUN python -m draft_service --help > /dev/null
CMD ["python", "-m", "draft_service"]
