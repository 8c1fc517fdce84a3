"""An agent with a tool through LlamaIndex."""

import asyncio

from llama_index.core.agent.workflow import FunctionAgent

from llamaindex_ollama_dify import OllamaDify


def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    return f"It is 22 degrees and sunny in {city}."


async def main() -> None:
    agent = FunctionAgent(tools=[get_weather], llm=OllamaDify(model="llama3.2"))
    print(await agent.run("What is the weather in Paris?"))


asyncio.run(main())
