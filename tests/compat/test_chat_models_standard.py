"""langchain-tests' suite as langchain-ollama runs it on itself, without its expected failures."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.compat.shim import ChatOllama
from tests.langchain.test_standard_suites import local_images, vcr_config

__all__ = ["local_images", "vcr_config"]


@pytest.mark.usefixtures("local_images")
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
class TestChatOllama(ChatModelIntegrationTests):
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    supports_model_override = True
    model_override_value = "llama3.2"
    enable_vcr_tests = True

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOllama

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "llama3.1"}
