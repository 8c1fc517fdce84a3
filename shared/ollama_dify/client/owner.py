"""What the five adapter classes share: clients made on first use, closing, warming up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, PrivateAttr

from ..settings import ConnectionSettings, ModelSettings
from ..wire.models import ModelInfo
from ..wire.repair import correction, schema_request
from .asynchronous import AsyncOllamaClient
from .blocking import OllamaClient

if TYPE_CHECKING:
    from ..tokens.counter import TokenCounter
else:
    TokenCounter = Any  # imported on first use; this name is for `typing.get_type_hints`


_A = TypeVar("_A", bound="ClientOwner")
_T = TypeVar("_T")


class ClientOwner(BaseModel):
    """A settings object with clients.

    The clients are made on first use and are left out of pickles and copies, so an object can move to
    another process and makes its own connections there. Mixed in before the settings class:
    `class ChatOllamaDify(BaseChatModel, ClientOwner, ChatSettings)`.
    """

    _clients: tuple[OllamaClient, AsyncOllamaClient] | None = PrivateAttr(default=None)

    def _both(self) -> tuple[OllamaClient, AsyncOllamaClient]:
        clients = self._clients  # read once: pydantic looks private attributes up slowly
        if clients is None:
            settings = cast(ConnectionSettings, self)
            clients = OllamaClient(settings), AsyncOllamaClient(settings)
            clients[1]._caches = clients[0]._caches
            self._clients = clients
        return clients

    @property
    def client(self) -> OllamaClient:
        """The client of this object's settings, for calls that the framework does not have."""
        return self._both()[0]

    @property
    def async_client(self) -> AsyncOllamaClient:
        """The async twin of `client`."""
        return self._both()[1]

    def warmup(self) -> ModelInfo:
        """Look the model up, get its vocabulary and have the server load it: the first call is quick.

        Also notices that a model was pulled again under the same name.
        """
        return self.client.warmup()

    async def awarmup(self) -> ModelInfo:
        """The async twin of `warmup`."""
        return await self.async_client.warmup()

    def known_model(self) -> ModelInfo | None:
        """The server's information about the model, if it was asked before; cached only, no network."""
        return None if self._clients is None else self.client.cache.model(cast(ModelSettings, self).model)

    def counter(self) -> TokenCounter:
        """The model's token counter; the first time this asks the server.

        On an event loop, which asking would block, it is the one `awarmup()` loaded, else an estimator.
        """
        settings = cast(ModelSettings, self)
        known = self.client.cache.counter(settings, settings.model)
        if known is not None and known.probed is not None:
            return known
        if not on_event_loop():
            return self.client.counter()
        from ..tokens.counter import TokenCounter  # few programs count

        return TokenCounter.from_show({}) if known is None else known

    def format_in_words(self, schema: Mapping[str, Any]) -> str | None:
        """The schema as text for the model, if the server is known to ignore `format`."""
        return schema_request(schema) if self._format_key() in self.client.cache.ignoring_format else None

    def correction(self, problem: BaseException, said: str, schema: Mapping[str, Any] | None) -> str:
        """The request to answer again after an answer that is not valid.

        said: the answer. schema: what was sent as `format`; a server that enforces it always writes JSON, so
        an answer that is not JSON shows that the server ignores it, which is remembered.
        """
        ignoring, key = self.client.cache.ignoring_format, self._format_key()
        tell = bool(said) and isinstance(problem, json.JSONDecodeError) and key not in ignoring
        if tell and schema is not None:
            ignoring.add(key)
        return correction(problem, schema if tell else None)

    def _format_key(self) -> str:
        model = self.known_model()
        return str(getattr(self, "model", "")) if model is None else model.digest or model.name

    async def _off_loop(self, read: Callable[[], _T], call: Mapping[str, Any]) -> _T:
        """Read the framework's messages; in a thread if images are converted, which takes long."""
        if call.get("convert_images", getattr(self, "convert_images", False)):
            return await asyncio.to_thread(read)
        return read()

    def share_clients(self, made: _A) -> _A:
        """Let a copy of this object use its connections; returns the copy."""
        made._clients = self._both()
        return made

    def close(self) -> None:
        """Close the sync connections; the object connects again when it is used again."""
        if self._clients is not None:
            self.client.close()

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        if self._clients is not None:
            await self.async_client.aclose()

    def __enter__(self: _A) -> _A:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self: _A) -> _A:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __copy__(self: _A) -> _A:
        made = super().__copy__()
        made._clients = None
        return made

    # Locks and sockets can neither be copied nor pickled.

    def __deepcopy__(self: _A, memo: dict[int, Any] | None = None) -> _A:
        return super(ClientOwner, copy(self)).__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        return super(ClientOwner, copy(self)).__getstate__()


def on_event_loop() -> bool:
    """Whether waiting here would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
