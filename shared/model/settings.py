"""Settings of a service that serves a model. They need no torch."""

from typing import Literal

from pydantic import Field

from shared.settings import Settings

Quant = Literal["none", "auto", "int8", "int4"]
DeviceKind = Literal["cpu", "simulated", "neuron"]


class EngineSettings(Settings):
    """How a model is served."""

    model: str
    """A Hugging Face folder, a .gguf file, a hub id, or the name of a pair."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """The type of the weights, before any rounding."""
    num_slots: int = Field(8, ge=1, le=1024)
    """How many sessions can be open at once."""
    max_length: int = Field(4096, ge=2)
    """The longest sequence, in tokens; cut to the model's own."""
    max_draft_tokens: int = Field(16, ge=1, le=31)
    """The largest k."""
    prefill_rows: int = Field(64, ge=2, le=256)
    """How many tokens of a prompt run beside the verifies of one forward pass."""
    slot_wait_seconds: float = Field(30, ge=0)
    """How long a session waits for a slot."""
    max_waiting: int = Field(64, ge=0)
    """How many sessions can wait for a slot."""
    quant: Quant = "none"
    """Round the weights, to what decodes fastest or to so many bits: for drafts, on a CPU; int4 is by ONNX Runtime."""
    kernel: str = "auto"
    """What multiplies on a CPU: `python -m target_service kernels --help`; `auto` is the fastest exact one there."""
    threads: int = Field(0, ge=0)
    """CPU threads of a forward pass; 0 leaves it to torch."""
    device: DeviceKind = "cpu"
    """Where the model runs; `simulated` computes on the CPU and takes the time of another device."""
    compile_backend: str = "neuron"
    """What compiles the graphs of device `neuron`; another backend of torch.compile runs them on the CPU, on trial."""
    smallest_bucket: int = Field(512, ge=64)
    """Keys of the smallest graphs of device `neuron`; the others have twice as many, and so on up to max_length."""
    cores: str = ""
    """The NeuronCores of this process, as `2`, `0-3` or `0,2`; without, those of NEURON_RT_VISIBLE_CORES, or all."""
    compile_cache: str = ""
    """The folder of compiled graphs; without, that of TORCH_NEURONX_NEFF_CACHE_DIR, or one in Outrider's cache."""
    profile: str = ""
    """The simulated device and model: a name in shared/model/profiles, or the path of a .toml file."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """Where Prometheus reads, beside the address; 0 is nowhere."""
    network_delay_ms: float = Field(0, ge=0)
    """How much later than sent each message of a stream arrives, either way: a simulated network."""
