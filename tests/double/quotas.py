"""Request rates per account and Region, over a sliding second of real time, and the highest ones seen."""

import time
from collections import deque


class Window:
    """The requests of the last second: those let through, and all that came."""

    def __init__(self) -> None:
        self.admitted: deque[float] = deque()
        self.arrived: deque[float] = deque()
        self.peak = 0

    def admit(self, limit: int | None) -> bool:
        now = time.monotonic()
        for times in (self.admitted, self.arrived):
            while times and times[0] <= now - 1.0:
                times.popleft()
        self.arrived.append(now)
        self.peak = max(self.peak, len(self.arrived))
        if limit is not None and len(self.admitted) >= limit:
            return False
        self.admitted.append(now)
        return True


class Rates:
    def __init__(self) -> None:
        self.windows: dict[tuple[str, str], Window] = {}

    def admit(self, operation: str, place: str, limit: int | None) -> bool:
        """Whether one more request of `operation` ("service:Name") at `place` ("account/region") is within `limit`."""
        return self.windows.setdefault((operation, place), Window()).admit(limit)

    def peaks(self, operation: str) -> dict[str, int]:
        return {place: window.peak for (name, place), window in self.windows.items() if name == operation}

    def all_peaks(self) -> dict[str, dict[str, int]]:
        return {operation: self.peaks(operation) for operation, _ in self.windows}
