"""OpenTelemetry: a client span for each HTTP exchange, where the program has set a tracer provider.

Nothing is imported for it: a program that has set a provider has imported OpenTelemetry. Without one a call
costs a look into a dictionary.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import httpx

__all__ = ["begin_span", "end_span"]


def begin_span(sent: httpx.Request) -> Any:
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
    return span


def end_span(span: Any, status: int | None, failed: str) -> None:
    """The exchange is over; the first call counts.

    failed: the class of what ended it, "" for nothing; an error's text may quote the server.
    """
    if span is None or not span.is_recording():
        return
    if status is not None:
        span.set_attribute("http.response.status_code", status)
        failed = str(status) if status >= 400 else failed
    if failed:
        span.set_attribute("error.type", failed)
        span.set_status(sys.modules["opentelemetry.trace"].StatusCode.ERROR)
    span.end()
