"""A retrieval chain over two texts through LangChain."""

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings
from ollama_dify import ChatSettings

settings = ChatSettings(model="llava", context_size=4096, temperature=0)
store = InMemoryVectorStore(OllamaDifyEmbeddings.from_settings(settings.for_embedding("nomic-embed-text")))
store.add_texts(["The observatory opens at 19:30.", "The refractor was built in Dublin."])

prompt = ChatPromptTemplate.from_template("Context:\n{context}\n\nQuestion: {question}")
retrieve = store.as_retriever(search_kwargs={"k": 1}) | (lambda found: found[0].page_content)
chain = (
    {"context": retrieve, "question": RunnablePassthrough()} | prompt | ChatOllamaDify.from_settings(settings)
)
print(chain.invoke("Where was the refractor built?").text)
