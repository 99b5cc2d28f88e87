"""Asks a service for its health: `python -m shared.health_check HOST:PORT` exits with 0 if it serves."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def serves(address: str, timeout_seconds: float = 3) -> bool:
    """Return whether the service at `host:port` reports that it is serving."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # set at run time
                health_pb2.HealthCheckRequest(), timeout=timeout_seconds
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if serves(sys.argv[1]) else 1)
