"""Our words to Ollama's JSON and back. Pure."""
