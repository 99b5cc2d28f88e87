"""A device that computes on the CPU with another device's timing."""

import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from typing_extensions import override

from shared.model.profile import Profile
from shared.model.runner import Rows, Runner, RunnerWrapper, Segment
from shared.model.settings import DeviceKind

log = structlog.get_logger()


class _Paced(RunnerWrapper):
    """Makes each pass take as long as the profile says, or as long as the runner takes if that is longer."""

    def __init__(self, runner: Runner, device: str, profile: Profile) -> None:
        super().__init__(runner, device)
        self._profile = profile

    @override
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        num_rows = sum(len(segment.token_ids) for segment in segments)
        end = time.perf_counter() + self._profile.seconds(num_rows, len(segments))
        rows = self.runner.extend(segments)
        late = time.perf_counter() - end
        if late > 0:
            log.warning("this machine is slower than the simulated device", by_ms=round(late * 1000, 1))
        time.sleep(max(0.0, -late))
        return rows


def on_device(runner: Runner, kind: DeviceKind, profile: str) -> Runner:
    """Return the runner, wrapped to take the profile's time if the device is simulated. Raises ModelError."""
    if kind != "simulated":
        return runner
    paces = Profile.load(profile)
    name = f"simulated: {Path(profile).stem}"
    log.warning("passes take the time of another device", device=name, assumed=paces.assumed)
    return _Paced(runner, name, paces)
