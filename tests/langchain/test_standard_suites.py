"""LangChain's own suites (langchain-tests), against the simulated server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings
from ollama_dify import Address

IMAGES = Path(__file__).parents[1] / "data" / "images"


class ChatSuite:
    """What the suites ask about the model. PDF, audio and video have no field in Ollama's API."""

    params: dict[str, Any] = {"model": "all-round"}

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOllamaDify

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return dict(self.params)

    supports_image_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    supports_json_mode = True
    supports_model_override = True
    enable_vcr_tests = True
    model_override_value = "llama3.2"


# A key from the environment is read at the first request and is no attribute.
ADDRESS = Address("http://localhost:11434", None, "OLLAMA_HOST")


class TestUnit(ChatSuite, ChatModelUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"OLLAMA_HOST": "localhost"}, {"model": "gpt-oss"}, {"address": ADDRESS}


class TestUnitV1(TestUnit):
    params = {"model": "all-round", "output_version": "v1"}


@pytest.fixture
def local_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite downloads a PNG with `httpx.get`; it gets one of ours."""
    image = (IMAGES / "png_rgb.png").read_bytes()
    monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(200, content=image))


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    """The recorder stays out: nothing leaves this machine."""
    return {"ignore_localhost": True}


@pytest.mark.usefixtures("server", "local_images")
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
class TestIntegration(ChatSuite, ChatModelIntegrationTests):
    """`server` sets OLLAMA_HOST, since the suite makes models of its own, too."""


class TestIntegrationV1(TestIntegration):
    params = {"model": "all-round", "output_version": "v1"}


class EmbeddingSuite:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OllamaDifyEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "nomic-embed-text"}


class TestEmbeddingsUnit(EmbeddingSuite, EmbeddingsUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"OLLAMA_HOST": "localhost"}, {"model": "nomic-embed-text"}, {"address": ADDRESS}


@pytest.mark.usefixtures("server")
class TestEmbeddingsIntegration(EmbeddingSuite, EmbeddingsIntegrationTests):
    """Against the simulated server."""
