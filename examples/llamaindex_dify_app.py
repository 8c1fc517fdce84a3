"""The models and prompts of a Dify app, from its export, through LlamaIndex."""

from pathlib import Path

from llamaindex_ollama_dify import OllamaDify, prompt_template
from ollama_dify import load_dify_app

app = load_dify_app(Path(__file__).with_name("support.yml"))
for node in app.nodes:
    llm = OllamaDify.from_settings(node.settings())
    messages = prompt_template(node).format_messages(
        product="telescopes", query="Which mirror do I clean first?"
    )
    print(node.title, dict(node.variables))
    print(llm.chat(messages).message.content)
print(*app.notes, sep="\n")
