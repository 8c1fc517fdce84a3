"""Passages that a retrieval found, put in order by a reranker, through LangChain."""

from langchain_core.documents import Document

from langchain_ollama_dify import OllamaDifyRerank
from ollama_dify import ChatSettings

settings = ChatSettings(model="llava", context_size=4096).for_rerank("qwen3-reranker", top_n=2)
found = ["The observatory opens at 19:30.", "Tea is served at four.", "The refractor was built in Dublin."]
with OllamaDifyRerank.from_settings(settings) as reranker:
    documents = [Document(text) for text in found]
    for document in reranker.compress_documents(documents, "Where was the refractor built?"):
        print(f"{document.metadata['relevance_score']:.2f} {document.page_content}")
