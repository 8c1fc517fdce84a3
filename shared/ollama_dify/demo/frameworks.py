"""What the demo does with each framework, over one persistent Chroma collection that both read and write."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import chromadb
from chromadb.config import Settings as ChromaOptions
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, SystemMessage
from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.vector_stores.chroma import ChromaVectorStore

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyRerank
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from llamaindex_ollama_dify import OllamaDifyRerank as LlamaIndexRerank

from .. import CapabilityError, ChatSettings


class Framework(NamedTuple):
    """add: passages of a source. find: the best passages with their sources. tokens: read and written so far.

    ask: streams the answer to a question, with a system message and an image where they are given.
    """

    name: str
    add: Callable[[list[str], str], Any]
    find: Callable[[str], list[tuple[str, str]]]
    ask: Callable[[str, str | None, Path | None], Iterator[str]]
    tokens: list[int]


def langchain(settings: ChatSettings, embedding_model: str, database: Any, collection: Any) -> Framework:
    """The demo through LangChain."""
    model = ChatOllamaDify.from_settings(settings)
    reranker = OllamaDifyRerank.from_settings(settings.for_rerank(settings.model))
    embeddings = OllamaDifyEmbeddings.from_settings(settings.for_embedding(embedding_model))
    store = Chroma(client=database, collection_name=collection.name, embedding_function=embeddings)
    tokens = [0, 0]

    def add(passages: list[str], source: str) -> None:
        store.add_documents([Document(text, metadata={"source": source}) for text in passages])

    def find(question: str) -> list[tuple[str, str]]:
        found = store.as_retriever(search_kwargs={"k": 8}).invoke(question)
        with contextlib.suppress(CapabilityError):  # a server before 0.12.11 cannot: the nearest first
            found = list(reranker.compress_documents(found, question))
        return [(document.page_content, document.metadata["source"]) for document in found[:4]]

    def ask(question: str, system: str | None, image: Path | None) -> Iterator[str]:
        content: list[str | dict[Any, Any]] = [{"type": "text", "text": question}]
        if image is not None:
            data = base64.b64encode(image.read_bytes()).decode()
            content.append({"type": "image", "base64": data, "mime_type": "image/png"})
        before = [] if system is None else [SystemMessage(system)]
        for chunk in model.stream([*before, HumanMessage(content)]):
            yield chunk.text
            if chunk.usage_metadata is not None:
                tokens[0] += chunk.usage_metadata["input_tokens"]
                tokens[1] += chunk.usage_metadata["output_tokens"]

    return Framework("LangChain", add, find, ask, tokens)


def llamaindex(settings: ChatSettings, embedding_model: str, database: Any, collection: Any) -> Framework:
    """The demo through LlamaIndex."""
    llm = OllamaDify.from_settings(settings)
    reranker = LlamaIndexRerank.from_settings(settings.for_rerank(settings.model))
    embedding = OllamaDifyEmbedding.from_settings(settings.for_embedding(embedding_model))
    store = ChromaVectorStore(chroma_collection=collection)
    # Named, since the index would load a splitter and its word lists otherwise.
    transformations: list[Any] = [embedding]
    index = VectorStoreIndex.from_vector_store(store, embedding, transformations=transformations)
    tokens = [0, 0]

    def add(passages: list[str], source: str) -> None:
        # Only the text is embedded, so that both frameworks make the same vector of a passage.
        hidden = {"excluded_embed_metadata_keys": ["source"], "excluded_llm_metadata_keys": ["source"]}
        nodes = [TextNode(text=text, metadata={"source": source}, **hidden) for text in passages]
        IngestionPipeline(transformations=transformations, vector_store=store).run(nodes=nodes)

    def find(question: str) -> list[tuple[str, str]]:
        found = index.as_retriever(similarity_top_k=8).retrieve(question)
        with contextlib.suppress(CapabilityError):  # as above
            found = reranker.postprocess_nodes(found, query_str=question)
        return [(hit.node.get_content(), str(hit.node.metadata["source"])) for hit in found[:4]]

    def ask(question: str, system: str | None, image: Path | None) -> Iterator[str]:
        blocks = [TextBlock(text=question), *([] if image is None else [ImageBlock(path=image)])]
        before = [] if system is None else [ChatMessage(role="system", content=system)]
        answer: Any = None
        for answer in llm.stream_chat([*before, ChatMessage(role="user", blocks=blocks)]):
            yield answer.delta or ""
        if answer is not None:
            tokens[0] += answer.additional_kwargs["prompt_tokens"]
            tokens[1] += answer.additional_kwargs["completion_tokens"]

    return Framework("LlamaIndex", add, find, ask, tokens)


def passages_of(path: Path) -> list[str]:
    """A file's paragraphs, joined to passages of some 600 characters."""
    if path.suffix == ".pdf":
        from pypdf import PdfReader  # 0.2 s that a run over an existing index saves

        text = "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
        lines = text.splitlines()
        paragraphs = ["\n".join(lines[start : start + 6]) for start in range(0, len(lines), 4)]
    else:
        paragraphs = path.read_text("utf-8").split("\n\n")
    passages = [""]
    for paragraph in filter(None, map(str.strip, paragraphs)):
        if passages[-1] and len(passages[-1]) + len(paragraph) > 600:
            passages.append("")
        passages[-1] = f"{passages[-1]}\n\n{paragraph}".strip()
    return passages


def open_index(
    files: list[Path], embedding_model: str, folder: Path | str, *, rebuild: bool
) -> tuple[Any, Any, bool]:
    """The database, the collection for these files and this model, and whether it has to be filled."""
    mark = hashlib.sha256(embedding_model.encode())
    for path in files:
        mark.update(path.name.encode() + path.read_bytes())
    name = f"demo-{mark.hexdigest()[:16]}"
    database = chromadb.PersistentClient(str(folder), ChromaOptions(anonymized_telemetry=False))
    existing = [collection.name for collection in database.list_collections()]
    if name in existing and not rebuild:
        return database, database.get_collection(name), False
    for old in existing:
        if old.startswith("demo-"):
            database.delete_collection(old)
    return database, database.create_collection(f"{name}-part", metadata={"hnsw:space": "cosine"}), True
