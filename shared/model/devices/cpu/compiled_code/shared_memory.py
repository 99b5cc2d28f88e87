"""What compiled code reads, writes and waits on by address."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shared.model.devices.cpu.compiled_code.vector_code import LONG, VectorCode, long


def _pointers(kind: types.Type) -> Any:
    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        """Return the pointer to what lies at an address, for `numba.carray`."""

        def emit(its: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], its.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), emit

    return pointer


floats_at, longs_at, words_at, shorts_at = map(_pointers, (types.float32, types.int64, types.int32, types.int16))


@intrinsic
def number(context: Any, address: Any, place: Any) -> Any:
    """Return one of the whole numbers that lie at an address."""

    def emit(_its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        code = VectorCode(builder)
        return code.load(code.at(*arguments, 8), 0, LONG)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def add(context: Any, address: Any) -> Any:
    """Add 1 to the whole number at an address, whatever other threads do, and return what it was."""

    def emit(_its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", VectorCode(builder).pointer(arguments[0], 0, LONG), long(1), "acq_rel")

    return types.int64(types.int64), emit


@intrinsic
def seen(context: Any, address: Any) -> Any:
    """Return the whole number at an address, and what other threads wrote before it."""

    def emit(_its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(VectorCode(builder).pointer(arguments[0], 0, LONG), "acquire", 8)

    return types.int64(types.int64), emit


@intrinsic
def rest(context: Any) -> Any:
    """Let a waiting thread's core do less for a moment."""

    def emit(its: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        pause = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, pause, "llvm.x86.sse2.pause"), [])
        return its.get_dummy_value()

    return types.void(), emit
