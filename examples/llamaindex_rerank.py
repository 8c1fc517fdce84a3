"""Passages that a retrieval found, put in order by a reranker, through LlamaIndex."""

from llama_index.core.schema import NodeWithScore, TextNode

from llamaindex_ollama_dify import OllamaDifyRerank
from ollama_dify import ChatSettings

settings = ChatSettings(model="llava", context_size=4096).for_rerank("qwen3-reranker", top_n=2)
found = ["The observatory opens at 19:30.", "Tea is served at four.", "The refractor was built in Dublin."]
with OllamaDifyRerank.from_settings(settings) as reranker:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in found]
    for hit in reranker.postprocess_nodes(nodes, query_str="Where was the refractor built?"):
        print(f"{hit.score:.2f} {hit.text}")
