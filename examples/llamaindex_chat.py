"""Chat, stream and look at an image through LlamaIndex."""

from importlib.resources import files
from pathlib import Path

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

from llamaindex_ollama_dify import OllamaDify

llm = OllamaDify(model="llava", context_size=4096, max_tokens=512, vision_support=True)

answer = llm.chat([ChatMessage(role="user", content="What is the capital of France?")])
print(answer.message.content, answer.additional_kwargs["total_tokens"])

for chunk in llm.stream_complete("Name three rivers."):
    print(chunk.delta, end="", flush=True)
print()

image = Path(str(files("ollama_dify.demo") / "data" / "clear-nights.png"))
blocks = [TextBlock(text="What does this show?"), ImageBlock(path=image)]
print(llm.chat([ChatMessage(role="user", blocks=blocks)]).message.content)
