"""Chat, stream and look at an image through LangChain."""

import base64
from importlib.resources import files
from pathlib import Path

from langchain_core.messages import HumanMessage

from langchain_ollama_dify import ChatOllamaDify

model = ChatOllamaDify(model="llava", context_size=4096, max_tokens=512, vision_support=True)

answer = model.invoke("What is the capital of France?")
print(answer.text, answer.usage_metadata)

for chunk in model.stream("Name three rivers."):
    print(chunk.text, end="", flush=True)
print()

image = Path(str(files("ollama_dify.demo") / "data" / "clear-nights.png"))
block = {"type": "image", "base64": base64.b64encode(image.read_bytes()).decode(), "mime_type": "image/png"}
print(model.invoke([HumanMessage([{"type": "text", "text": "What does this show?"}, block])]).text)
