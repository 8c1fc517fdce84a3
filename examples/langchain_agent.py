"""An agent with a tool through LangChain (`pip install langchain`)."""

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from langchain_ollama_dify import ChatOllamaDify


@tool
def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    return f"It is 22 degrees and sunny in {city}."


agent = create_agent(ChatOllamaDify(model="llama3.2"), [get_weather])
question = HumanMessage("What is the weather in Paris?")
for message in agent.invoke({"messages": [question]})["messages"]:
    message.pretty_print()
