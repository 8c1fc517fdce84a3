"""OpenTelemetry: a client span for each HTTP exchange, where the program has set a tracer provider.

Nothing is imported for it: a program that has set a provider has imported OpenTelemetry. Without one a call
costs a look into a dictionary.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import httpx

__all__ = ["Span", "begin_span"]


class Span:
    """The span of one exchange; `status` and `error` are told when they are known."""

    __slots__ = ("_span", "_trace")

    def __init__(self, span: Any, trace: Any) -> None:
        self._span = span
        self._trace = trace

    def status(self, code: int) -> None:
        """The status of the response."""
        self._span.set_attribute("http.response.status_code", code)
        if code >= 400:
            self._fail(str(code))

    def error(self, error: BaseException) -> None:
        """What ended the exchange; its text may quote the server and is not recorded."""
        self._fail(type(error).__name__)

    def _fail(self, kind: str) -> None:
        if self._span.is_recording():
            self._span.set_attribute("error.type", kind)
            self._span.set_status(self._trace.StatusCode.ERROR)

    def end(self) -> None:
        """The exchange is over; the first call counts."""
        if self._span.is_recording():
            self._span.end()


def begin_span(sent: httpx.Request) -> Span | None:
    """Begin a span under the current one, and put its `traceparent` into the request's headers.

    None where no tracer provider is set.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    url = sent.url
    described = {
        "http.request.method": sent.method,
        "url.full": str(url),
        "server.address": url.host,
        "server.port": url.port or {"http": 80, "https": 443}.get(url.scheme, 0),
    }
    span = trace.get_tracer("ollama_dify").start_span(
        f"{sent.method} {url.path}", kind=trace.SpanKind.CLIENT, attributes=described
    )
    if not span.get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    importlib.import_module("opentelemetry.propagate").inject(carrier, trace.set_span_in_context(span))
    sent.headers.update(carrier)
    return Span(span, trace)
