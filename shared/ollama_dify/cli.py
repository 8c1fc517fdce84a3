"""The `ollama-dify` command."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
except ImportError:  # pragma: no cover - shown by the packaging test, in an environment of its own
    sys.exit('The command needs its extra: pip install "ollama-dify[cli]"')

from .errors import OllamaError
from .testing import SimulatedOllama

__all__ = ["main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Ollama with the settings of Dify's form.")

BaseUrl = Annotated[
    str | None, typer.Option(help="Address of the Ollama server; unset: OLLAMA_HOST, else localhost.")
]


@app.callback()
def _root() -> None:
    """Ollama with the settings of Dify's form."""


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="A chat model that reads images.")] = "llava",
    embedding_model: Annotated[str, typer.Option(help="An embedding model.")] = "nomic-embed-text",
    base_url: BaseUrl = None,
    index_dir: Annotated[Path, typer.Option(help="Where the vector index is kept.")] = Path(".demo"),
    rebuild: Annotated[bool, typer.Option(help="Build the index anew.")] = False,
) -> None:
    """Answer questions over files and images through LangChain and LlamaIndex."""
    from .demo import main as run

    raise typer.Exit(
        run(
            model=model,
            embedding_model=embedding_model,
            base_url=base_url,
            index_dir=index_dir,
            rebuild=rebuild,
        )
    )


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 11434,
    version: Annotated[str, typer.Option(help="Which Ollama to act as.")] = "0.33.0",
) -> None:
    """Serve a simulated Ollama: the real protocol, answers by rule, no model."""
    server = SimulatedOllama(host=host, port=port, version=version)
    typer.echo(f"Simulated Ollama {version} on http://{host}:{port} - answers by rule. Ctrl-C ends it.")
    try:
        asyncio.run(server.serve_forever())
    except KeyboardInterrupt:
        typer.echo("Ended.")
    except OSError as error:
        typer.echo(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port.", err=True)
        raise typer.Exit(1) from None


def main() -> None:
    """Run the command; errors of the library are said in two lines, not as a traceback."""
    try:
        app()
    except OllamaError as error:
        typer.echo(f"{error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
