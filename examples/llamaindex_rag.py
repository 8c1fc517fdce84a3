"""A query engine over two texts through LlamaIndex."""

from llama_index.core import Document, Settings, VectorStoreIndex

from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import ChatSettings

settings = ChatSettings(model="llava", context_size=4096, temperature=0)
Settings.llm = OllamaDify.from_settings(settings)
Settings.embed_model = OllamaDifyEmbedding.from_settings(settings.for_embedding("nomic-embed-text"))

texts = ["The observatory opens at 19:30.", "The refractor was built in Dublin."]
index = VectorStoreIndex.from_documents([Document(text=text) for text in texts])
print(index.as_query_engine(similarity_top_k=1).query("Where was the refractor built?"))
