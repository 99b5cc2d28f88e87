"""Prompts whose reply is the middle of a text."""

from collections.abc import Sequence

from gateway.generation.prompts import Prompts
from gateway.text.tokenizer import ChatTokenizer, TextLengthError
from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb


class FimPrompts:
    """Puts prompts together from tokens, so that no text of a request can stand for one of them.

    Its methods raise InvalidFieldError where the model has no such tokens, and ContextLengthError.
    """

    def __init__(self, target: pb.ModelInfo, tokenizer: ChatTokenizer, prompts: Prompts) -> None:
        """Make prompts for this target."""
        self._target, self._tokenizer, self._prompts = target, tokenizer, prompts

    def of(self, fields: tuple[str, str], prefix: str | list[int], suffix: str) -> list[int]:
        """Return the prompt between a prefix and a suffix, which come from these fields."""
        fim = self._tokenizer.fim
        if not fim:
            raise InvalidFieldError(fields[1], "the model's vocabulary has no tokens to fill in the middle of a text")
        before = prefix if isinstance(prefix, list) else self._encode(fields[0], prefix)
        return [*self._tokenizer.begin_ids, *fim.prompt(before, self._encode(fields[1], suffix, continues=True))]

    def with_files(self, prompt: list[int], files: Sequence[tuple[str, str]], reserved: int) -> list[int]:
        """Return the prompt behind other files, each a name and a text: of their end, as much as there is room for.

        That leaves `reserved` tokens of the context for the reply. As llama-server does.
        """
        fim, room = self._tokenizer.fim, self._target.max_length - len(prompt) - reserved
        if not fim or not files or room <= 0:
            return prompt
        encode = self._tokenizer.encode_plain
        extra = [] if fim.repo is None else [fim.repo, *encode("myproject\n")]
        for name, text in files:
            head = "\n\n--- snippet ---\n\n" if fim.file is None else f"{name or 'tmp'}\n"
            extra += [*([] if fim.file is None else [fim.file]), *encode(head), *self._encode("input_extra", text)]
        if fim.file is not None:
            extra += [fim.file, *encode("filename\n")]
        begin = len(self._tokenizer.begin_ids)
        return [*prompt[:begin], *extra[-room:], *prompt[begin:]]

    def _encode(self, field: str, text: str, *, continues: bool = False) -> list[int]:
        try:
            self._tokenizer.check_size(len(text.encode()), self._target.max_length)
        except TextLengthError as error:
            raise self._prompts.no_room(field, str(error)) from error
        return self._tokenizer.encode_plain(text, continues=continues)
