"""Settings of a service that serves a model. They need no torch."""

from typing import Literal

from pydantic import Field

from shared.settings import Settings

Quant = Literal["", "none", "auto", "int8", "int4", "gguf"]
DeviceKind = Literal["cpu", "simulated", "neuron"]
CollectiveKind = Literal["gather", "all_reduce"]
NUM_SLOTS, MAX_LENGTH = 8, 4096  # where memory does not decide: devices other than a CPU, and several ranks


class EngineSettings(Settings):
    """How a model is served."""

    model: str
    """A Hugging Face folder, a .gguf file, a hub id, or the name of a pair."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """The type of the weights, before any rounding."""
    num_slots: int | None = Field(None, ge=1, le=1024)
    """How many sessions can be open at once. If not given, 8, or on a CPU as many as fit the memory, at least 2."""
    max_length: int | None = Field(None, ge=2)
    """The longest sequence, in tokens; capped at the model's own limit. If not given, that limit as far as it fits the
    memory of a CPU, and 4096 elsewhere."""
    cache_share: float = Field(0.5, gt=0, le=1)
    """How much of the memory that is left when the weights are loaded may go to keys and values, where num_slots or
    max_length is not given."""
    max_draft_tokens: int = Field(16, ge=1, le=31)
    """The largest k: draft tokens per round."""
    prefill_rows: int = Field(64, ge=2, le=256)
    """How many prompt tokens one forward pass runs beside its verifies."""
    slot_wait_seconds: float = Field(30, ge=0)
    """How long a session waits for a slot."""
    max_waiting: int = Field(64, ge=0)
    """How many sessions can wait for a slot."""
    grammar_seconds: float = Field(10, gt=0)
    """How much CPU time a grammar, a schema or a regular expression may take to compile."""
    idle_seconds: float = Field(60, gt=0)
    """How long a stream may send nothing, or read nothing, before it loses its slot."""
    watchdog_seconds: float = Field(60, gt=0)
    """The service ends if a pass takes longer than this, and than 50 times what its kind took at start."""
    quant: Quant = "none"
    """Round the weights, on a CPU: for drafts, `auto` picks what decodes fastest, and `int4` runs on ONNX Runtime."""
    kernel: str = "auto"
    """The kernel on a CPU; `auto` picks the fastest exact one. See `python -m target_service kernels --help`."""
    threads: int = Field(0, ge=0)
    """CPU threads for a forward pass; 0 lets torch decide."""
    device: DeviceKind = "cpu"
    """Where the model runs; `simulated` computes on the CPU with another device's timing."""
    compile_backend: str = "neuron"
    """The compiler for device `neuron`; any other torch.compile backend runs its graphs on the CPU, for trials."""
    collective: CollectiveKind = "gather"
    """How ranks join their parts: gathered, or as a sum of parts padded with zeros; the bits are the same."""
    smallest_bucket: int = Field(512, ge=64)
    """Keys in the smallest graphs of device `neuron`; each larger size doubles, up to max_length."""
    cores: str = ""
    """This process's NeuronCores, as `2`, `0-3` or `0,2`; if empty, those in NEURON_RT_VISIBLE_CORES, or all."""
    compile_cache: str = ""
    """The folder for compiled graphs; if empty, TORCH_NEURONX_NEFF_CACHE_DIR, or a folder in Outrider's cache."""
    profile: str = ""
    """The profile of a simulated device and model: a name in shared/model/profiles, or the path of a .toml file."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """The port where Prometheus reads metrics, on the host of the address; 0 turns them off."""
    network_delay_ms: float = Field(0, ge=0)
    """A simulated network: how long each message of a stream is delayed, in each direction."""

    @property
    def fixed_size(self) -> tuple[int, int]:
        """The slots and the length where memory does not decide them."""
        return self.num_slots or NUM_SLOTS, self.max_length or MAX_LENGTH
