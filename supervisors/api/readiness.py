"""`/readyz`: what keeps a runtime from its work."""

from collections.abc import Callable

from amends.kernel import Kernel
from supervisors.detector import Detector


class Readiness:
    """Looks at each part. `linked`: whether the runtime's connection to NATS stands."""

    def __init__(self, kernel: Kernel, detector: Detector, linked: Callable[[], bool]) -> None:
        self._kernel, self._detector, self._linked = kernel, detector, linked

    def checks(self) -> dict[str, str | None]:
        """What is wrong with each part, None for nothing."""
        kernel = self._kernel
        return {
            "postgres": None if kernel.lease.may_act() else "the lease was not renewed for 5 s",
            "nats": None if self._linked() else "not connected",
            "journal": kernel.writer.trouble or None,
            "detector": "no heartbeat can be heard: nobody is judged" if self._detector.blind else None,
        }
