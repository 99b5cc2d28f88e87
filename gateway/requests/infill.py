"""The request of llama-server's fill-in-the-middle."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from gateway.requests.base import MAX_INTEGRAL, MAX_ITEMS, Many, Schema, at_most
from gateway.requests.completion import CompletionRequest
from gateway.requests.grammar_fields import GrammarText, JsonSchema
from gateway.requests.sampling_fields import SamplingFields
from gateway.requests.translation import translated

Json = dict[str, Any]
INFILL_FIELDS = {
    "prompt": "input_prefix",
    "max_tokens": "n_predict",
    "repetition_penalty": "repeat_penalty",
    "guided_grammar": "grammar",
    "guided_json": "json_schema",
}
"""Fields of a completion, which the planner's errors name, and the fields here that they are made from."""


class ExtraFile(Schema):
    """A file of the same project, or a piece of one."""

    filename: str = ""
    text: str


class InfillRequest(SamplingFields):
    """The body of POST /infill, with llama-server's defaults."""

    model: str = ""
    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: Annotated[Many[ExtraFile], at_most(MAX_ITEMS)] = Field([])
    prompt: str = ""
    """The end of the prefix: the line that is being written."""
    n_predict: Annotated[int, Field(ge=-1, le=MAX_INTEGRAL)] = -1
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.8
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] = 40
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    grammar: GrammarText | None = None
    json_schema: JsonSchema | None = None
    return_tokens: bool = False
    stream: bool = False

    @field_validator("logit_bias", mode="before")
    @classmethod
    def pairs_are_an_object(cls, value: Any) -> Any:
        """Read llama-server's pairs of a token and a bias, of which false forbids the token."""
        pairs = isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 for one in value)
        return {str(token): -100.0 if bias is False else bias for token, bias in value} if pairs else value

    def completion(self, room: int) -> CompletionRequest:
        """Return the completion that this asks for, with so much room. Raises InvalidFieldError."""
        fields: Json = self.model_dump(include=set(SamplingFields.model_fields)) | {
            "model": self.model,
            "prompt": [[0]],
            "max_tokens": room if self.n_predict < 0 else self.n_predict,
            "echo": self.n_predict == 0,
            "seed": None if self.seed == -1 else self.seed,
            "guided_grammar": self.grammar or None,
            "guided_json": self.json_schema,
        }
        if "repeat_penalty" in self.model_fields_set:
            fields["repetition_penalty"] = self.repeat_penalty
        return translated(CompletionRequest, fields, INFILL_FIELDS, "grammar")
