"""The models and prompts of a Dify app, from its export, through LangChain."""

from pathlib import Path

from langchain_ollama_dify import ChatOllamaDify, prompt_template
from ollama_dify import load_dify_app

app = load_dify_app(Path(__file__).with_name("support.yml"))
for node in app.nodes:
    chain = prompt_template(node) | ChatOllamaDify.from_settings(node.settings())
    print(node.title, dict(node.variables))
    print(
        chain.invoke({"product": "telescopes", "query": "Which mirror do I clean first?", "history": []}).text
    )
print(*app.notes, sep="\n")
