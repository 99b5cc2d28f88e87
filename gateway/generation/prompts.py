"""Turns chats and texts into prompts that fit the context."""

from collections.abc import Sequence

from gateway.generation.errors import ContextLengthError
from gateway.requests.chat import ChatMessage, ChatRequest
from gateway.text.tokenizer import ChatTokenizer, TextLengthError
from shared.pb import specdec_pb2 as pb


class Prompts:
    """Renders and tokenizes. Its methods raise ContextLengthError for what has too many tokens."""

    def __init__(self, target: pb.ModelInfo, tokenizer: ChatTokenizer) -> None:
        """Make prompts for this target."""
        self._target, self._tokenizer = target, tokenizer

    def chat(self, request: ChatRequest, at_most: int) -> str:
        """Return the text of a chat, unless it is clear before it is rendered that it has more tokens."""
        messages = self.fitting(request.messages, at_most)
        return self._tokenizer.render_chat(messages, request.offered, request.chat_template_kwargs)

    def fitting(self, messages: Sequence[ChatMessage], at_most: int) -> Sequence[ChatMessage]:
        """Return the messages, unless it is clear before they are rendered that they are more than so many tokens."""
        if len(messages) > at_most:
            raise self.no_room("messages", f"{len(messages)} messages")
        try:
            self._tokenizer.check_size(sum(message.num_bytes for message in messages), at_most)
        except TextLengthError as error:
            raise self.no_room("messages", str(error)) from error
        return messages

    def encode(self, field: str, text: str, at_most: int | None = None, *, special: bool = True) -> list[int]:
        """Return the token ids of a text, by default of one that leaves room in the context."""
        try:
            at_most = self._target.max_length - 1 if at_most is None else at_most
            return self._tokenizer.encode(text, add_special_tokens=special, at_most=at_most)
        except TextLengthError as error:
            raise self.no_room(field, str(error)) from error

    def no_room(self, field: str, length: str) -> ContextLengthError:
        """Return the error of a prompt of this length."""
        return ContextLengthError(
            field, f"{length} leave no room for a reply in the context of {self._target.max_length}"
        )
