"""Text to token ids and back."""

import inspect
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jinja2
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import cached_file
from transformers.utils.chat_template_utils import _compile_jinja_template

from gateway.requests.chat import ChatMessage
from gateway.text.call_history import as_taken, takes_text
from gateway.text.detokenizer import Detokenizer
from gateway.text.fim import FimTokens
from gateway.text.plain_encoder import PlainEncoder
from gateway.text.token_bytes import TokenBytes
from shared.errors import InvalidFieldError, ModelError, OutriderError
from shared.fingerprint import fingerprint

Json = dict[str, Any]
RESERVED = frozenset(inspect.signature(PreTrainedTokenizerFast.apply_chat_template).parameters) - {
    "documents",
    "kwargs",
}
"""Options of the library's rendering, which are no options of a template."""


class TextLengthError(OutriderError):
    """A text has too many tokens; the message begins with its length."""


class ChatTokenizer:
    """A model's tokenizer, its chat template and its stop tokens. Safe to use from several threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop_token_ids: frozenset[int]) -> None:
        """Wrap a tokenizer; a reply ends at any of the stop tokens."""
        self.stop_token_ids = stop_token_ids
        self._chat = tokenizer
        # The library's own encoder: transformers' wrapper sets its options at each call, which is not thread-safe.
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.token_bytes = TokenBytes(self._tokenizer)
        self.fim = FimTokens.of(self._tokenizer.token_to_id)
        """The tokens for the middle of a text, if the vocabulary has any."""
        self.begin_ids = self.encode("")[:1]
        """The token that begins a text, if there is one."""
        self.encode_plain = PlainEncoder(self._tokenizer).encode

    @classmethod
    def load(cls, name: str, chat_template: str = "") -> Self:
        """Load the tokenizer of a model folder or hub id, with the template of a file instead of its own, if given.

        It must have a `tokenizer.json`. Raises ModelError.
        """
        try:
            # Not AutoTokenizer, which imports torch wherever it is installed.
            tokenizer = PreTrainedTokenizerFast.from_pretrained(name)
            path = cached_file(name, "generation_config.json", _raise_exceptions_for_missing_entries=False)
            eos = json.loads(Path(path).read_text("utf-8")).get("eos_token_id") if path else None
        except (OSError, ValueError) as error:
            raise ModelError(f"no tokenizer in {name}: {error}") from error
        if chat_template:
            tokenizer.chat_template = _read_template(chat_template)
        listed = eos if isinstance(eos, list) else [eos]
        return cls(tokenizer, frozenset({*listed, tokenizer.eos_token_id} - {None}))

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the vocabulary, to compare with a service's."""
        return fingerprint(self._tokenizer.get_vocab())

    def encode(self, text: str, *, add_special_tokens: bool = True, at_most: int | None = None) -> list[int]:
        """Return the token ids of a text, by default with the special tokens that the model wants around it.

        Raises TextLengthError if there are more than `at_most`: at once where as many of the longest token are shorter
        than the text.
        """
        self.check_size(len(text.encode()), at_most)
        # Unlike `encode`, it lets go of the interpreter.
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        if at_most is not None and len(encoding) > at_most:
            raise TextLengthError(f"{len(encoding)} tokens")
        return list(encoding.ids)

    def check_size(self, num_bytes: int, at_most: int | None) -> None:
        """Raise TextLengthError if a text of so many bytes must have more tokens than that."""
        if at_most is not None and num_bytes > at_most * self.token_bytes.longest:
            raise TextLengthError(f"{num_bytes} bytes")

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, with special tokens by name."""
        # Unlike `decode`, it lets go of the interpreter.
        [text] = self._tokenizer.decode_batch([list(token_ids)], skip_special_tokens=False)
        return str(text)

    @property
    def chat_template(self) -> str:
        """The template of chats. Raises InvalidFieldError."""
        try:
            return str(self._chat.get_chat_template())
        except ValueError as error:
            told = "the model has no chat template; the gateway's flag --chat-template FILE gives it one"
            raise InvalidFieldError("messages", told) from error

    def render_chat(
        self, messages: Sequence[ChatMessage], tools: Sequence[Json] = (), options: Json | None = None
    ) -> str:
        """Return the text of a chat, up to where the reply begins; options go to the template.

        Raises InvalidFieldError.
        """
        template = self.chat_template
        # Most templates know only "system", and drop messages of unknown roles.
        renamed = {} if "developer" in template else {"developer": "system"}
        chat: list[dict[str, Any]] = [
            message.rendered | {"role": renamed.get(message.role, message.role)} for message in messages
        ]
        texts = [[call.function.arguments for call in message.tool_calls] for message in messages]
        if any(texts):
            chat = as_taken(chat, template, texts if self._takes_text else None)
        if taken := {*(options or {})} & (RESERVED | {"messages", "conversations"}):
            raise InvalidFieldError("chat_template_kwargs", f"{min(taken)} is not an option of a chat template")
        try:
            return self._apply(chat, tools, options)
        except jinja2.TemplateError as error:
            raise InvalidFieldError("messages", f"the model's chat template refuses them: {error}") from error
        except Exception as error:  # a template is a program, and what it is given decides how it fails
            field = "chat_template_kwargs" if options else "messages"
            raise InvalidFieldError(field, f"the model's chat template fails on them: {error}") from error

    def _apply(self, chat: Sequence[Json], tools: Sequence[Json] = (), options: Json | None = None) -> str:
        return str(
            self._chat.apply_chat_template(
                list(chat),
                tools=list(tools) or None,
                chat_template=self.chat_template,
                add_generation_prompt=True,
                tokenize=False,
                **(options or {}),
            )
        )

    @cached_property
    def _takes_text(self) -> bool:
        return takes_text(self._apply)

    def encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Return the token ids of a chat, up to where the reply begins. Raises InvalidFieldError."""
        return self.encode(self.render_chat(messages), add_special_tokens=False)

    def detokenizer(self, shown: Iterable[str] = ()) -> Detokenizer:
        """Begin the text of a reply; special tokens of these names are part of it."""
        return Detokenizer(self._tokenizer, self.token_bytes, self.token_bytes.named(shown))


def _read_template(file: str) -> str:
    try:
        template = Path(file).expanduser().read_text("utf-8")
        _compile_jinja_template(template)
    except (OSError, UnicodeError, jinja2.TemplateSyntaxError) as error:
        raise ModelError(f"chat template {file}: {error}") from error
    return template
