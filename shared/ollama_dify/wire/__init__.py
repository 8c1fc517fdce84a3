"""Our types to Ollama's JSON and back. Pure."""
