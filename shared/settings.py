"""How every service reads its settings."""

import sys
from typing import Literal, Self

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings from `OUTRIDER_*` variables and, over them, from flags of the same names."""

    model_config = SettingsConfigDict(
        env_prefix="OUTRIDER_",
        frozen=True,
        cli_parse_args=True,
        cli_kebab_case=True,
        use_attribute_docstrings=True,  # the text of `--help`
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level of events to log."""

    @classmethod
    def load(cls) -> Self:
        """Read the settings; if any are invalid, print one line for each with its key and end the process."""
        try:
            return cls()
        except ValidationError as error:
            for problem in error.errors():
                key = ".".join(str(part) for part in problem["loc"])
                secret = cls.model_fields[str(problem["loc"][0])].annotation is SecretStr
                hidden = secret or problem["type"] == "missing"  # pydantic's input of a missing one is all the others
                given = "" if hidden else f" (given: {problem['input']!r})"
                sys.stderr.write(f"setting {key}: {problem['msg']}{given}\n")
            sys.exit(2)
