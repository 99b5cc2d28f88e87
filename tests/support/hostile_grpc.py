"""gRPC messages such as no well-meaning client sends: valid ones with fields of any value, in any order."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from shared.pb import specdec_pb2 as pb

INTS = [0, 1, 2, 3, 5, 7, 16, 31, -1, 255, 600, 4096, 10**6, 2**31 - 1, -(2**31)]
FLOATS = [0.0, 1.0, 0.5, -1.0, 1e-7, 1e-40, 1e9, 3e38, -3e38, float("nan"), float("inf"), float("-inf")]
TEXTS = [
    "",
    "{}",
    '{"type": "integer"}',
    '{"$ref": "#"}',
    "{" * 500,
    "(" * 300,
    "[a-z]{2000}",
    "a*",
    'start: "a"',
    "start: start",
    "\0",
    "e\u0301",
]
LENGTHS = [0, 1, 2, 17, 300, 5000]
OF_TYPE: dict[int, Sequence[Any]] = {
    FieldDescriptor.TYPE_INT32: INTS,
    FieldDescriptor.TYPE_INT64: [*INTS, 2**63 - 1, -(2**63)],
    FieldDescriptor.TYPE_FLOAT: FLOATS,
    FieldDescriptor.TYPE_BOOL: [True, False],
    FieldDescriptor.TYPE_STRING: TEXTS,
}


def _change(draw: st.DrawFn, message: Message) -> None:
    """Give one field, here or deeper, any value of its type."""
    fields: Any = message.DESCRIPTOR.fields  # of a class that depends on protobuf's implementation
    field = draw(st.sampled_from(list(fields)))
    if field.message_type and field.message_type.GetOptions().map_entry:
        for key in draw(st.lists(st.sampled_from(INTS), max_size=3)):
            getattr(message, field.name)[key] = draw(st.sampled_from(FLOATS))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if not field.is_repeated:
            _change(draw, getattr(message, field.name))
    elif field.type not in OF_TYPE:
        return
    elif field.is_repeated:
        values = draw(st.lists(st.sampled_from(OF_TYPE[field.type]), min_size=1, max_size=3))
        message.ClearField(field.name)
        getattr(message, field.name).extend(values * draw(st.sampled_from(LENGTHS)))
    else:
        setattr(message, field.name, draw(st.sampled_from(OF_TYPE[field.type])))


def verify_requests() -> list[pb.VerifyRequest]:
    """Return a valid session of the target: its opening and two rounds."""
    sampling = pb.SamplingParams(top_p=1, temperature=0.8, seed=3)
    return [
        pb.VerifyRequest(open=pb.VerifyOpen(prompt_token_ids=[5, 6, 7], sampling=sampling, max_tokens=8)),
        pb.VerifyRequest(verify=pb.VerifyDraft(round=0, position=3)),
        pb.VerifyRequest(verify=pb.VerifyDraft(round=1, position=4, draft_token_ids=[9, 9])),
    ]


def draft_requests() -> list[pb.DraftRequest]:
    """Return a valid session of the draft: its opening and another proposal."""
    sampling = pb.SamplingParams(top_p=1, temperature=0.8, seed=3)
    opening = pb.DraftOpen(prompt_token_ids=[5, 6, 7], sampling=sampling, num_draft_tokens=3, num_lookup_tokens=3)
    following = pb.DraftAdvance(round=1, position=3, token_ids=[8, 9], num_draft_tokens=2)
    return [pb.DraftRequest(open=opening), pb.DraftRequest(advance=following)]


@st.composite
def sessions(draw: st.DrawFn, valid: Callable[[], list[Any]]) -> list[Any]:
    """Draw the messages of a stream: those of a valid one, some changed, left out, repeated or in another order."""
    messages = valid()
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, draw(st.sampled_from(messages)))
    if draw(st.integers(0, 3)):
        return messages
    return draw(st.lists(st.sampled_from(messages), max_size=6))
