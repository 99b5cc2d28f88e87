"""Errors of requests that are made from those of other APIs."""

import pytest

from gateway.requests.infill import INFILL_FIELDS
from gateway.requests.messages import MESSAGES_FIELDS
from gateway.requests.responses import CHAT_FIELDS
from gateway.requests.translation import Names, renamed
from shared.errors import InvalidFieldError


@pytest.mark.parametrize(
    ("names", "made", "sent"),
    [
        (INFILL_FIELDS, "max_tokens", "n_predict"),
        (MESSAGES_FIELDS, "max_completion_tokens", "max_tokens"),
        (CHAT_FIELDS, "max_completion_tokens", "max_output_tokens"),
    ],
)
def test_all_of_an_error_names_what_was_sent(names: Names, made: str, sent: str) -> None:
    """Claim: the field and the fields in the text are the client's; words of the text stay."""
    problem = "5 is more than {}, of a prompt with stop, messages and max_tokens_of_mine"
    with pytest.raises(InvalidFieldError) as caught, renamed(names):
        raise InvalidFieldError("min_tokens", problem.format(made))
    assert (caught.value.field, caught.value.problem) == ("min_tokens", problem.format(sent))
