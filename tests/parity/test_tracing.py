"""OpenTelemetry: one client span for each HTTP exchange, and the `traceparent` that the server sees."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings
from llamaindex_ollama_dify import OllamaDifyEmbedding
from ollama_dify import OllamaError
from ollama_dify.testing import Fault, SimulatedOllama

from .ways import CHAT, TEXT

WAYS = {**CHAT, **TEXT}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What a program's own tracer provider exports."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


async def ask(way: str, server: SimulatedOllama, **settings: Any) -> None:
    kind, call = WAYS[way]
    with kind(**{"model": "llama3.2", "base_url": server.base_url, **settings}) as model:
        asked: Any = "Hello"
        if way in CHAT:
            asked = [HumanMessage(asked)] if kind is ChatOllamaDify else [ChatMessage(asked)]
        try:
            with trace.get_tracer("test").start_as_current_span("outer"):
                await call(model, asked)
        finally:
            await model.aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_a_span_for_each_exchange(
    simulated_ollama: SimulatedOllama, spans: InMemorySpanExporter, way: str
) -> None:
    await ask(way, simulated_ollama)
    span, outer = spans.get_finished_spans()
    (request,) = simulated_ollama.requests
    assert (span.name, span.kind) == (f"POST {request.path}", trace.SpanKind.CLIENT)
    assert span.parent == outer.context
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "url.full": simulated_ollama.base_url + request.path,
        "server.address": "127.0.0.1",
        "server.port": int(simulated_ollama.base_url.rpartition(":")[2]),
        "http.response.status_code": 200,
    }
    sent = dict(request.headers)["traceparent"]
    assert sent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")


# What goes wrong, and what the spans say of it.
FAILURES = {
    "status": (Fault("status", status=500, data=b'{"error":"it broke"}'), "500"),
    "reset": (Fault("reset", part="response", after=0), "ConnectionFailedError"),
}


@pytest.mark.parametrize(("fault", "kind"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("way", WAYS)
async def test_a_failed_exchange(
    simulated_ollama: SimulatedOllama, spans: InMemorySpanExporter, way: str, fault: Fault, kind: str
) -> None:
    simulated_ollama.fault(fault, times=None)
    with pytest.raises(OllamaError):
        await ask(way, simulated_ollama, max_retries=0)
    span, _outer = spans.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == kind
    assert "it broke" not in str(span.attributes)


@pytest.mark.parametrize("kind", [OllamaDifyEmbeddings, OllamaDifyEmbedding])
async def test_batches_side_by_side_belong_to_the_call(
    simulated_ollama: SimulatedOllama, spans: InMemorySpanExporter, kind: Any
) -> None:
    with kind(model="nomic-embed-text", base_url=simulated_ollama.base_url, batch_size=1) as model:
        with trace.get_tracer("test").start_as_current_span("outer"):
            model.embed(["a", "b", "c"])
            await model.aembed(["a", "b", "c"])
        await model.aclose()
    *made, outer = spans.get_finished_spans()
    assert [span.parent for span in made] == [outer.context] * 6


@pytest.mark.parametrize("missing", ["OpenTelemetry", "provider", "spans"])
async def test_no_header_without_a_provider(
    simulated_ollama: SimulatedOllama, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    kind, call = next(iter(TEXT.values()))
    if missing == "OpenTelemetry":
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    provider = trace.NoOpTracerProvider() if missing == "spans" else trace.ProxyTracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with kind(model="llama3.2", base_url=simulated_ollama.base_url) as model:
        await call(model, "Hello")
        await model.aclose()
    assert "traceparent" not in dict(simulated_ollama.requests[-1].headers)


@pytest.mark.parametrize("way", WAYS)
async def test_a_context_around_the_call_is_sent_without_a_provider(
    simulated_ollama: SimulatedOllama, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    around = trace.SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=True)
    with trace.use_span(trace.NonRecordingSpan(around)):
        await ask(way, simulated_ollama)
    sent = dict(simulated_ollama.requests[-1].headers)["traceparent"]
    assert sent.startswith(f"00-{0xABC:032x}-{0xDEF:016x}-")
