"""The committed stubs are those of the proto file, and the services describe themselves."""

import subprocess
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from services import ROOT, StartService

STUBS = ["specdec_pb2.py", "specdec_pb2.pyi", "specdec_pb2_grpc.py", "specdec_pb2_grpc.pyi"]


def test_stubs_are_generated_from_the_proto_file(tmp_path: Path) -> None:
    """Generating them anew, by the Makefile's own command, gives the same bytes."""
    binaries = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={binaries / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    outputs = [f"--{name}_out={tmp_path}" for name in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Ishared/pb=proto/specdec/v1", *plugins, *outputs]
    subprocess.run([*command, "proto/specdec/v1/specdec.proto"], cwd=ROOT, check=True)
    for name in STUBS:
        assert (tmp_path / "shared/pb" / name).read_text() == (ROOT / "shared/pb" / name).read_text(), "make proto"


def test_health_and_reflection(start: StartService, toy: tuple[Path, Path]) -> None:
    """A client that knows no proto file finds the service, its methods, and its health."""
    for module, name, half in (("target_service", "TargetService", 0), ("draft_service", "DraftService", 1)):
        address = start(module, model=toy[half], dtype="bfloat16").address
        with grpc.insecure_channel(address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert f"specdec.v1.{name}" in database.get_services()
            described = database.FindFileContainingSymbol(f"specdec.v1.{name}")
            assert described.package == "specdec.v1"
            request = health_pb2.HealthCheckRequest(service=f"specdec.v1.{name}")
            answer = health_pb2_grpc.HealthStub(channel).Check(request)  # type: ignore[attr-defined]  # set at run time
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
