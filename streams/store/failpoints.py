"""Named places between two durable statements at which a process can be made to die, as a power cut would have it.

``reach`` costs one look at a variable unless ``arm`` named a place; then the process that comes there for the
n-th time sends itself SIGKILL: nothing is flushed, closed or rolled back. Decides nothing; which place is armed
is a setting (``GOVBUS_FAILPOINT``), for the fault rig alone.
"""

from __future__ import annotations

import os
import signal

from schemas.errors import Misconfigured

NAMES = (
    "publish.before_commit", "publish.after_commit",
    "relay.after_read", "relay.half_handed_over", "relay.after_send", "relay.after_mark",
    "worker.after_fetch", "worker.after_mirror",
    "apply.after_lock", "apply.after_state", "apply.after_cursor", "apply.after_commit",
    "tick.after_state", "tick.after_commit", "aside.after_say", "aside.after_commit",
    "consume.after_poll", "consume.after_lock", "consume.after_effect", "consume.after_cursor",
    "consume.after_commit",
    "push.after_form", "push.after_post", "push.before_keep_commit", "push.after_keep",
    "province.before_commit", "province.after_commit",
)  # fmt: skip
"""Every place there is."""

SIGNAL = signal.SIGRTMIN
"""Arms what was to be armed later; Faust has taken the signals that are free for users."""
_armed = ""
_left = 0


def arm(place: str) -> None:
    """Arm ``name`` or ``name:n`` (die there at the n-th time, by default the first); an empty text arms nothing.

    With ``@later`` behind it, it is armed when ``SIGNAL`` comes; call it from the main thread then. Raises
    ``Misconfigured`` for a place that does not exist.
    """
    what, _, when = place.partition("@")
    name, _, count = what.partition(":")
    if (name and name not in NAMES) or (count and not count.isdecimal()) or when not in ("", "later"):
        raise Misconfigured(f"GOVBUS_FAILPOINT: there is no place {place!r}; there are {', '.join(NAMES)}")
    if when:
        signal.signal(SIGNAL, lambda *_: _arm(name, int(count or 1)))
    else:
        _arm(name, int(count or 1))


def _arm(name: str, times: int) -> None:
    global _armed, _left
    _armed, _left = name, times


def reach(name: str) -> None:
    """Say that this process is at ``name``; returns unless it is to die here."""
    if _armed and _armed == name:
        _die_at_last()


def _die_at_last() -> None:
    global _left
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
