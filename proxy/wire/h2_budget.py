"""Frames that are no request, bounded: a burst, refilled by time and by replies.

Against rapid reset (CVE-2023-44487), floods of SETTINGS, PING, empty and unknown frames
(CVE-2019-9512, -9515, -9518) and of CONTINUATION (CVE-2024-27316), as nghttp2 bounds resets.
"""

CREDIT = 2  # frames that come with a reply as they should: window updates


class Budget:
    """A bucket of `burst` frames that gains `a_second` of them each second."""

    __slots__ = ("_a_second", "_at_s", "_burst", "_left")

    def __init__(self, burst: int, a_second: int, now: float) -> None:
        """`now` is monotonic, in seconds."""
        self._burst = burst
        self._a_second = a_second
        self._left = float(burst)
        self._at_s = now

    def spend(self, now: float, replies: int) -> bool:
        """Take one frame, after `replies` since the last call; return whether it was there."""
        gained = (now - self._at_s) * self._a_second + replies * CREDIT
        self._left = min(float(self._burst), self._left + gained) - 1
        self._at_s = now
        return self._left >= 0
