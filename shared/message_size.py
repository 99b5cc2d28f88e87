"""How large a message to a service can be that the service would not refuse anyway."""

from shared.sampling_params import MAX_GRAMMAR_CHARACTERS, MAX_LISTED

TOKEN_ID_BYTES = 5  # a varint of up to 35 bits
BIAS_BYTES = 2 + 1 + TOKEN_ID_BYTES + 1 + 4  # an entry of a map: its length, a key and a float, each after a tag
CHARACTER_BYTES = 4  # in UTF-8
OTHER_BYTES = 2**19  # for all other fields, and so that what is a little too long is refused by the name of its field


def max_message_bytes(num_token_ids: int) -> int:
    """Return the size of the largest `open` with so many token ids.

    A service that accepts no larger message parses none: that would take seconds of its event loop from all streams.
    """
    return (
        (num_token_ids + MAX_LISTED["stop_token_ids"]) * TOKEN_ID_BYTES
        + MAX_LISTED["logit_bias"] * BIAS_BYTES
        + MAX_GRAMMAR_CHARACTERS * CHARACTER_BYTES
        + OTHER_BYTES
    )
