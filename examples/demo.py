"""RAG over real files and a question about an image, through LangChain and through LlamaIndex.

One settings object configures both frameworks. The Markdown files are indexed by LlamaIndex, the PDF by
LangChain, into one persistent Chroma collection; then each framework also answers from what the other
wrote. Run it with `make demo` or `ollama-dify demo`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings as ChromaOptions
from langchain_chroma import Chroma
from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, TextNode
from llama_index.vector_stores.chroma import ChromaVectorStore
from pypdf import PdfReader
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import ChatSettings, ConnectionSettings, OllamaClient, OllamaError
from ollama_dify.testing import SimulatedOllama

HERE = Path(__file__).parent
BATCH = 16
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from the context alone, in one sentence."),
        ("user", "Context information is below.\n---\n{context}\n---\nQuery: {question}\nAnswer:"),
    ]
)


@dataclass
class Run:
    """One run of the demo: where the models are, what was used."""

    console: Console
    settings: ChatSettings
    embedding_model: str
    index_dir: Path
    used: dict[str, list[int]] = field(default_factory=dict)
    right: int = 0
    asked: int = 0

    def count(self, who: str, tokens_in: int, tokens_out: int) -> None:
        total = self.used.setdefault(who, [0, 0])
        total[0] += tokens_in
        total[1] += tokens_out


def main(
    *,
    model: str = "llava",
    embedding_model: str = "nomic-embed-text",
    base_url: str | None = None,
    data: Path = HERE / "data",
    index_dir: Path = Path(".demo"),
    rebuild: bool = False,
) -> int:
    """Run the demo; 0 when every answer came from the right file."""
    console = Console(highlight=False)
    started = time.monotonic()
    with server(console, base_url, model, embedding_model) as url:
        settings = ChatSettings(
            model=model, base_url=url, context_size=4096, max_tokens=1024, vision_support=True, temperature=0
        )
        run = Run(console, settings, embedding_model, index_dir)
        show_form(run)
        collection = open_index(run, data, rebuild=rebuild)
        for number, question in enumerate(json.loads((HERE / "questions.json").read_text("utf-8"))):
            ask = ask_langchain if number % 2 == 0 else ask_llamaindex
            check(run, question, *ask(run, collection, question["question"]))
        ask_about_images(run, data)
        show_usage(run)
    console.print(
        f"\n[bold]{run.right} of {run.asked}[/] answers as expected, in {time.monotonic() - started:.1f} s. "
        f"Index: {index_dir}/ (run again to reuse it).",
        soft_wrap=True,
    )
    return 0 if run.right == run.asked else 1


@contextlib.contextmanager
def server(console: Console, base_url: str | None, *models: str) -> Iterator[str]:
    """The Ollama server that has the models, else a simulated one, and one line that says which."""
    connection = ConnectionSettings(base_url=base_url, timeout=5, max_retries=0)
    wanted = {name if ":" in name else f"{name}:latest" for name in models}
    try:
        with OllamaClient(connection) as client:
            version, missing = client.version(), wanted - {found.name for found in client.tags()}
    except OllamaError:
        reason = f"no Ollama answers at {connection.address.url}"
    else:
        if not missing:
            console.print(f"[green]●[/] Ollama {version} at {connection.address.url}")
            yield connection.address.url
            return
        reason = f"Ollama at {connection.address.url} lacks {', '.join(sorted(missing))}"
    with SimulatedOllama() as simulated:
        console.print(
            f"[yellow]●[/] SIMULATED Ollama at {simulated.base_url} ({reason}): answers by rule.",
            soft_wrap=True,
        )
        yield simulated.base_url


def show_form(run: Run) -> None:
    """The settings, in the words of Dify's form."""
    table = Table(title="Settings, as on Dify's form", title_justify="left", show_header=False)
    fields = type(run.settings).model_fields
    for name in ("model", "base_url", "mode", "context_size", "max_tokens", "vision_support"):
        value = getattr(run.settings, name)
        table.add_row(fields[name].title or name, "Yes" if value is True else str(value))
    run.console.print(table)


def chunks_of(path: Path) -> list[TextNode]:
    """A file in passages of some 150 tokens that know where they are from."""
    if path.suffix == ".pdf":
        text = "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
    else:
        text = path.read_text("utf-8")
    splitter = SentenceSplitter(chunk_size=160, chunk_overlap=20, include_metadata=False)
    passages = splitter.split_text(Document(text=text).text)
    # Only the text is embedded, so that both frameworks make the same vector of a passage.
    return [
        TextNode(
            text=passage,
            metadata={"source": path.name},
            excluded_embed_metadata_keys=["source"],
            excluded_llm_metadata_keys=["source"],
        )
        for passage in passages
    ]


def embedders(run: Run) -> tuple[OllamaDifyEmbeddings, OllamaDifyEmbedding]:
    settings = run.settings.for_embedding(run.embedding_model)
    return OllamaDifyEmbeddings.from_settings(settings), OllamaDifyEmbedding.from_settings(settings)


def open_index(run: Run, data: Path, *, rebuild: bool) -> Any:
    """The Chroma collection for these files and this embedding model; made when it is not there yet."""
    files = sorted(path for path in data.iterdir() if path.suffix in (".md", ".pdf"))
    mark = hashlib.sha256(run.embedding_model.encode())
    for path in files:
        mark.update(path.name.encode() + path.read_bytes())
    database = chromadb.PersistentClient(str(run.index_dir), ChromaOptions(anonymized_telemetry=False))
    name = f"demo-{mark.hexdigest()[:16]}"
    existing = [collection.name for collection in database.list_collections()]
    if name in existing and not rebuild:
        collection = database.get_collection(name)
        run.console.print(f"Index: {collection.count()} passages of {len(files)} files, reused.\n")
        return collection
    for old in existing:
        if old.startswith("demo-"):
            database.delete_collection(old)
    collection = database.create_collection(f"{name}-part", metadata={"hnsw:space": "cosine"})
    ingest(run, collection, database, files)
    # The name is given last: an index that was interrupted is built again.
    collection.modify(name=name)
    run.console.print(f"Index: {collection.count()} passages of {len(files)} files, new.\n")
    return collection


def ingest(run: Run, collection: Any, database: Any, files: list[Path]) -> None:
    """Markdown through LlamaIndex, PDF through LangChain, into the same collection."""
    langchain_embed, llamaindex_embed = embedders(run)
    store = Chroma(client=database, collection_name=collection.name, embedding_function=langchain_embed)
    index = VectorStoreIndex(
        [],
        storage_context=StorageContext.from_defaults(
            vector_store=ChromaVectorStore(chroma_collection=collection)
        ),
        embed_model=llamaindex_embed,
    )
    passages = {path: chunks_of(path) for path in files}
    columns = (TextColumn("Embedding {task.description:<28}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=run.console) as progress:
        task = progress.add_task("", total=sum(map(len, passages.values())))
        for path, nodes in passages.items():
            by_langchain = path.suffix == ".pdf"
            progress.update(task, description=path.name)
            for start in range(0, len(nodes), BATCH):
                batch = nodes[start : start + BATCH]
                if by_langchain:
                    store.add_documents(
                        [LangChainDocument(node.text, metadata=node.metadata) for node in batch]
                    )
                else:
                    index.insert_nodes(batch)
                progress.advance(task, len(batch))


def ask_langchain(run: Run, collection: Any, question: str) -> tuple[str, list[str]]:
    """Retrieve and answer through LangChain, streamed."""
    embed, _ = embedders(run)
    store = Chroma(
        client=chromadb.PersistentClient(str(run.index_dir), ChromaOptions(anonymized_telemetry=False)),
        collection_name=collection.name,
        embedding_function=embed,
    )
    found = store.as_retriever(search_kwargs={"k": 4}).invoke(question)
    chain = PROMPT | ChatOllamaDify.from_settings(run.settings)
    heading(run, "LangChain", question)
    whole: Any = None
    for chunk in chain.stream(
        {"context": "\n\n".join(document.page_content for document in found), "question": question}
    ):
        run.console.print(chunk.text, end="", markup=False)
        whole = chunk if whole is None else whole + chunk
    usage = whole.usage_metadata
    run.count("LangChain", usage["input_tokens"], usage["output_tokens"])
    return str(whole.text), [document.metadata["source"] for document in found]


def ask_llamaindex(run: Run, collection: Any, question: str) -> tuple[str, list[str]]:
    """Retrieve and answer through LlamaIndex, streamed."""
    _, embed = embedders(run)
    index = VectorStoreIndex.from_vector_store(
        ChromaVectorStore(chroma_collection=collection), embed_model=embed
    )
    llm = OllamaDify.from_settings(run.settings)
    found = index.as_retriever(similarity_top_k=4).retrieve(question)
    heading(run, "LlamaIndex", question)
    context = "\n\n".join(hit.node.get_content() for hit in found)
    messages = [
        ChatMessage(role="system" if message.type == "system" else "user", content=str(message.content))
        for message in PROMPT.format_messages(context=context, question=question)
    ]
    answer: Any = None
    for answer in llm.stream_chat(messages):
        run.console.print(answer.delta or "", end="", markup=False)
    usage = answer.additional_kwargs
    run.count("LlamaIndex", usage["prompt_tokens"], usage["completion_tokens"])
    return str(answer.message.content), [str(hit.node.metadata["source"]) for hit in found]


def heading(run: Run, framework: str, question: str) -> None:
    run.console.print(f"[cyan]{framework:<10}[/] [bold]{question}[/]", soft_wrap=True)
    run.console.print(" " * 11, end="")


def check(run: Run, question: dict[str, str], answer: str, sources: list[str]) -> None:
    """Show where the answer is from, and whether that is the right file."""
    run.asked += 1
    right = question["answer_contains"] in answer and sources[0] == question["file"]
    run.right += right
    mark = (
        "[green]✓[/]" if right else f"[red]✗ expected {question['answer_contains']} of {question['file']}[/]"
    )
    run.console.print(f"\n           [dim]source: {sources[0]}[/] {mark}\n", soft_wrap=True)


def ask_about_images(run: Run, data: Path) -> None:
    """The same two images through both frameworks."""
    images = sorted(path for path in data.iterdir() if path.suffix in (".png", ".jpg"))
    for path in images:
        question = f"What does {path.name} show?"
        heading(run, "LangChain", question)
        block = {
            "type": "image",
            "base64": base64.b64encode(path.read_bytes()).decode(),
            "mime_type": f"image/{'png' if path.suffix == '.png' else 'jpeg'}",
        }
        said = ChatOllamaDify.from_settings(run.settings).invoke(
            [HumanMessage([{"type": "text", "text": question}, block])]
        )
        run.console.print(said.text, markup=False)
        assert said.usage_metadata is not None
        run.count("LangChain", said.usage_metadata["input_tokens"], said.usage_metadata["output_tokens"])
        heading(run, "LlamaIndex", question)
        answer = OllamaDify.from_settings(run.settings).chat(
            [ChatMessage(role="user", blocks=[TextBlock(text=question), ImageBlock(path=path)])]
        )
        run.console.print(str(answer.message.content), "\n", markup=False)
        usage = answer.additional_kwargs
        run.count("LlamaIndex", usage["prompt_tokens"], usage["completion_tokens"])
        run.asked += 1
        run.right += bool(said.text) and said.text == answer.message.content


def show_usage(run: Run) -> None:
    table = Table(title="Tokens used", title_justify="left")
    for heading_, justify in (("", "left"), ("input", "right"), ("output", "right")):
        table.add_column(heading_, justify=justify)  # type: ignore[arg-type]  # rich's literal
    for who, (tokens_in, tokens_out) in run.used.items():
        table.add_row(who, str(tokens_in), str(tokens_out))
    run.console.print(table)


if __name__ == "__main__":
    sys.exit(main())
