"""LangChain's retrieval chains over both classes."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_classic.chains import create_history_aware_retriever, create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore, VectorStoreRetriever

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from ollama_dify.testing import SimulatedOllama
from tests.langchain.asking import ways

FACTS = {
    "harbour.md": "The harbour of Vellmar was opened in 1874. Its lighthouse is painted red and white.",
    "bakery.md": "The bakery on Linden Street sells rye bread every Tuesday at six in the morning.",
    "library.md": "The library keeps forty thousand books, and lends each of them for three weeks.",
}
QUESTION = "When was the harbour of Vellmar opened?"
PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Answer from the context.\n\nContext:\n{context}"), ("user", "{input}")]
)
PLAIN_PROMPT = PromptTemplate.from_template("Context:\n{context}\n\nQuestion: {input}")
models = pytest.mark.parametrize("name", ["all-round", "qwen3"], ids=["plain", "thinking"])


@pytest.fixture
def retriever(server: SimulatedOllama) -> VectorStoreRetriever:
    documents = [Document(text, metadata={"file": name}) for name, text in FACTS.items()]
    store = InMemoryVectorStore.from_documents(documents, OllamaDifyEmbeddings(model="nomic-embed-text"))
    return store.as_retriever(search_kwargs={"k": 1})


async def run(chain: Any, way: str, asked: Any) -> Any:
    """The chain's output; the parts of a stream added up."""
    if way == "invoke":
        return chain.invoke(asked)
    if way == "ainvoke":
        return await chain.ainvoke(asked)
    parts = list(chain.stream(asked)) if way == "stream" else [part async for part in chain.astream(asked)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


@ways
@models
async def test_retrieval_chain(
    server: SimulatedOllama, retriever: VectorStoreRetriever, way: str, name: str
) -> None:
    documents = create_stuff_documents_chain(ChatOllamaDify(model=name), PROMPT)

    got = await run(create_retrieval_chain(retriever, documents), way, {"input": QUESTION})

    assert "1874" in got["answer"]
    assert [document.metadata["file"] for document in got["context"]] == ["harbour.md"]
    assert FACTS["harbour.md"] in server.requests[-1].body["messages"][0]["content"]
    assert FACTS["bakery.md"] not in server.requests[-1].body["messages"][0]["content"]


@ways
@pytest.mark.parametrize("kind", [ChatOllamaDify, OllamaDifyLLM], ids=["chat", "completion"])
async def test_a_chain_of_runnables(retriever: VectorStoreRetriever, way: str, kind: Any) -> None:
    context = retriever | (lambda found: "\n\n".join(document.page_content for document in found))
    chain = {"context": context, "input": RunnablePassthrough()} | PLAIN_PROMPT | kind(model="all-round")

    assert "1874" in await run(chain | StrOutputParser(), way, QUESTION)


@ways
async def test_a_chain_with_a_history(
    server: SimulatedOllama, retriever: VectorStoreRetriever, way: str
) -> None:
    model = ChatOllamaDify(model="all-round")
    rephrase = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("chat_history"), ("user", "{input}"), ("user", "Give it as one whole question.")]
    )
    server.reply(QUESTION, when=lambda request: "whole question" in str(request.body))
    aware = create_history_aware_retriever(model, retriever, rephrase)
    chain = create_retrieval_chain(aware, create_stuff_documents_chain(model, PROMPT))
    history = [HumanMessage("I like the harbour of Vellmar."), AIMessage("So do I.")]

    got = await run(chain, way, {"input": "When was it opened?", "chat_history": history})

    assert [document.metadata["file"] for document in got["context"]] == ["harbour.md"]
    assert "1874" in got["answer"]
