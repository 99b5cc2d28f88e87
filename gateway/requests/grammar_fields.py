"""The fields that constrain the form of the output: OpenAI's, vLLM's, and those that vLLM had until 0.12."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gateway.requests.base import Many, Schema
from gateway.requests.json_text import JsonTextError, parse_json
from shared.sampling_params import MAX_GRAMMAR_CHARACTERS, Grammar


def _is_json(text: str) -> str:
    try:
        parse_json(text)
    except JsonTextError as error:
        raise PydanticCustomError("no_json", f"is text that {error}") from error
    return text


def _are_short(choices: list[str]) -> list[str]:
    if sum(map(len, choices)) > MAX_GRAMMAR_CHARACTERS:
        raise PydanticCustomError("too_long", f"has more than {MAX_GRAMMAR_CHARACTERS} characters")
    return choices


JsonSchema = dict[str, Any] | bool
GrammarText = Annotated[str, Field(max_length=MAX_GRAMMAR_CHARACTERS)]
JsonText = Annotated[GrammarText, AfterValidator(_is_json)]
ANY_OBJECT: JsonSchema = {"type": "object"}
Choices = Annotated[Many[Annotated[str, Field(min_length=1)]], Field(min_length=1), AfterValidator(_are_short)]


class NamedSchema(Schema):
    """A JSON schema with a name, of which only the schema matters."""

    name: str = ""
    definition: JsonSchema = Field(ANY_OBJECT, alias="schema")


class ResponseFormat(Schema):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def schema_is_there(self) -> Self:
        """Refuse `json_schema` without a schema."""
        if self.type == "json_schema" and not self.json_schema:
            raise PydanticCustomError("missing_schema", "json_schema is missing")
        return self

    @property
    def grammar(self) -> Grammar | None:
        """What the output conforms to, if anything."""
        if self.type == "text":
            return None
        return json_grammar(self.json_schema.definition if self.json_schema else ANY_OBJECT)


class StructuredOutputs(Schema):
    """vLLM's `structured_outputs`: one of the first five."""

    json_: JsonSchema | JsonText | None = Field(None, alias="json")
    regex: GrammarText | None = None
    choice: Choices | None = None
    grammar_: GrammarText | None = Field(None, alias="grammar")
    json_object: bool = False
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False

    @property
    def grammars(self) -> list[Grammar]:
        """What the output must conform to; a request may have only one."""
        asked = []
        whitespace = "" if self.disable_any_whitespace else self.whitespace_pattern
        if self.json_ is not None or self.json_object:
            asked.append(json_grammar(ANY_OBJECT if self.json_ is None else self.json_, whitespace))
        if self.regex is not None:
            asked.append(Grammar("regex", self.regex))
        if self.choice is not None:
            asked.append(choice_grammar(self.choice))
        if self.grammar_ is not None:
            asked.append(Grammar("lark", self.grammar_))
        return asked


class GrammarFields(Schema):
    """The fields; a request may use one of them."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonSchema | JsonText | None = None
    guided_regex: GrammarText | None = None
    guided_choice: Choices | None = None
    guided_grammar: GrammarText | None = None

    @model_validator(mode="after")
    def one_at_most(self) -> Self:
        """Refuse more than one."""
        if len(self._grammars) > 1:
            fields = ", ".join(field for field, _ in self._grammars)
            raise PydanticCustomError("one_grammar", f"one form of the output can be asked for, not all of: {fields}")
        return self

    @property
    def grammar(self) -> tuple[str, Grammar] | None:
        """The field that asks for a form, and what it asks for."""
        return next(iter(self._grammars), None)

    @property
    def _grammars(self) -> list[tuple[str, Grammar]]:
        asked = [
            ("response_format", self.response_format.grammar if self.response_format else None),
            ("guided_json", json_grammar(self.guided_json) if self.guided_json is not None else None),
            ("guided_regex", Grammar("regex", self.guided_regex) if self.guided_regex is not None else None),
            ("guided_choice", choice_grammar(self.guided_choice) if self.guided_choice is not None else None),
            ("guided_grammar", Grammar("lark", self.guided_grammar) if self.guided_grammar is not None else None),
        ]
        structured = self.structured_outputs.grammars if self.structured_outputs else []
        return [(field, grammar) for field, grammar in asked if grammar] + [
            ("structured_outputs", grammar) for grammar in structured
        ]


def json_grammar(schema: JsonSchema | str, whitespace_pattern: str | None = None) -> Grammar:
    """Return the grammar of a JSON schema, given as JSON or as its text."""
    if whitespace_pattern is not None:
        definition = parse_json(schema) if isinstance(schema, str) else schema
        if isinstance(definition, dict):
            schema = definition | {"x-guidance": {"whitespace_pattern": whitespace_pattern}}
    if schema is True:
        schema = {}
    return Grammar("json_schema", schema if isinstance(schema, str) else json.dumps(schema))


def choice_grammar(choices: Choices) -> Grammar:
    """Return the grammar that allows any one of these texts."""
    return Grammar("lark", f"start: {' | '.join(json.dumps(choice, ensure_ascii=False) for choice in choices)}")
