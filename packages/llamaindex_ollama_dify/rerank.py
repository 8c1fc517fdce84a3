"""`OllamaDifyRerank`: the settings as a LlamaIndex node postprocessor."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # re-exported
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from ollama_dify import ConfigurationError, RerankResult, RerankSettings
from ollama_dify.adapter import ClientOwner

from .pickling import PickleMixin

__all__ = ["OllamaDifyRerank"]

dispatcher = get_dispatcher(__name__)


class OllamaDifyRerank(PickleMixin, BaseNodePostprocessor, ClientOwner, RerankSettings):
    """A model of an Ollama server that reranks nodes, by the settings of Dify's form.

        index.as_query_engine(node_postprocessors=[OllamaDifyRerank(model="qwen3-reranker", top_n=3)])

    Returns the nodes, the most relevant first, with scores from 0 to 1; the given nodes are not changed. A
    node is judged by its text with the metadata that embeddings see. Nodes for which the model said neither
    yes nor no come last, with score 0; `client.rerank` lists them.
    """

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises under."""
        return "OllamaDifyRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        with self._reported(nodes, query) as made:
            made += _ranked(nodes, self.client.rerank(query, _texts(nodes)))
        return made

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        with self._reported(nodes, query) as made:
            made += _ranked(nodes, await self.async_client.rerank(query, _texts(nodes)))
        return made

    @contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: str) -> Generator[list[NodeWithScore], None, None]:
        """LlamaIndex's events and callback around the work, which fills the list it is given."""
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        made: list[NodeWithScore] = []
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield made
            event.on_end(payload={EventPayload.NODES: made})
        dispatcher.event(ReRankEndEvent(nodes=made))


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise ConfigurationError("Reranking needs the query.", hint="Pass query_str= or query_bundle=.")
    return bundle.query_str


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [hit.node.get_content(metadata_mode=MetadataMode.EMBED) for hit in nodes]


def _ranked(nodes: list[NodeWithScore], result: RerankResult) -> list[NodeWithScore]:
    return [NodeWithScore(node=nodes[place].node, score=result.scores[place]) for place in result.order]
