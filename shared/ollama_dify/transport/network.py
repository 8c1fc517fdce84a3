"""What logic asks of the network: the steps that a flow yields, and their answers.

A flow is a generator: it yields a step, the driver does it and sends the result back, or throws our
error in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ..wire.requests import WireRequest

if TYPE_CHECKING:
    from ..media.urls import ParsedUrl

__all__ = [
    "Answer",
    "Close",
    "Compute",
    "FetchPinned",
    "Fetched",
    "Flow",
    "OpenStream",
    "Opened",
    "Parallel",
    "Resolve",
    "Send",
    "Sleep",
    "Step",
    "TimeLeft",
]

T = TypeVar("T")


# Steps and their answers are named tuples: to define a frozen dataclass takes four times as long, and these
# eleven would be a tenth of what importing the core takes.
class Answer(NamedTuple):
    """A successful response, read to its end."""

    body: bytes
    headers: Mapping[str, str]


class Opened(Protocol):
    """A successful streamed response: its driver reads on from it, and closes it (the async one awaits)."""

    first: bytes

    def close(self) -> Any: ...


class Send(NamedTuple):
    """Send a request and read the whole response → Answer. Any failure is thrown in as ours."""

    request: WireRequest
    limit: int = 64 * 1024 * 1024


class OpenStream(NamedTuple):
    """Send a request and read the first bytes of the response → Opened."""

    request: WireRequest


class Close(NamedTuple):
    """Close what OpenStream gave → None."""

    opened: Opened


class Sleep(NamedTuple):
    """Wait → None."""

    seconds: float


class Compute(NamedTuple):
    """Call a function that takes long or reads a file, off the event loop → its result."""

    work: Callable[[], Any]


@dataclass(slots=True)
class TimeLeft:
    """Seconds that several steps may take together; the driver takes off what each took."""

    seconds: float


class Resolve(NamedTuple):
    """Look a host up → its IP addresses, or UnsupportedContentError thrown in."""

    host: str
    port: int
    within: TimeLeft


class Fetched(NamedTuple):
    """What FetchPinned got: a body, or where it redirects to."""

    body: bytes = b""
    location: str | None = None


class FetchPinned(NamedTuple):
    """GET an image of at most `limit` bytes from exactly this IP address → Fetched."""

    target: ParsedUrl
    ip: str
    limit: int
    within: TimeLeft


class Parallel(NamedTuple):
    """Run flows, at most `limit` at once → their results or errors, in order."""

    flows: Sequence[Generator[Any, Any, Any]]
    limit: int


Step = Send | OpenStream | Close | Sleep | Compute | Resolve | FetchPinned | Parallel
Flow = Generator[Step, Any, T]
