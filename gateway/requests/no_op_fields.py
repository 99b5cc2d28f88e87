"""Unsupported fields that clients know and that would change the output: only their no-op value is accepted."""

from typing import Annotated, LiteralString

from pydantic import AfterValidator, BaseModel
from pydantic_core import PydanticCustomError


def _only(no_op: object, why: LiteralString = "is not supported here; leave it out") -> AfterValidator:
    """Accept this value and refuse any other."""

    def check(value: object) -> object:
        if value != no_op:
            raise PydanticCustomError("unsupported", why)
        return value

    return AfterValidator(check)


class NoOpFields(BaseModel):
    """Each field with the one value, besides null, that changes nothing. Ignoring any other would be a silent lie."""

    functions: Annotated[object, _only([])] = None
    function_call: Annotated[object, _only("none")] = None
    modalities: Annotated[object, _only(["text"])] = None
    audio: Annotated[object, _only({})] = None
    web_search_options: Annotated[object, _only({})] = None
    prompt_logprobs: Annotated[object, _only(0)] = None
    suffix: Annotated[object, _only("")] = None

    # Not OpenAI's, but sent by clients of open-weight servers.
    length_penalty: Annotated[object, _only(1)] = None
    use_beam_search: Annotated[object, _only(no_op=False)] = None
    bad_words: Annotated[object, _only([])] = None
    allowed_token_ids: Annotated[object, _only([])] = None
    skip_special_tokens: Annotated[object, _only(no_op=True)] = None
    truncate_prompt_tokens: Annotated[object, _only(no_op=None)] = None
    chat_template: Annotated[object, _only(no_op=None)] = None
    add_generation_prompt: Annotated[object, _only(no_op=True)] = None
    continue_final_message: Annotated[object, _only(no_op=False)] = None


class NoOpResponsesFields(BaseModel):
    """The same for the Responses API, where nothing is stored."""

    previous_response_id: Annotated[object, _only(None, "no response is stored here; send its items as input")] = None
    conversation: Annotated[object, _only(no_op=None)] = None
    prompt: Annotated[object, _only(no_op=None)] = None
    background: Annotated[object, _only(no_op=False)] = None
    truncation: Annotated[object, _only("disabled")] = None
