"""Where the server is and how to talk to it: the root of all settings, and of every adapter."""

from __future__ import annotations

import os
import re
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from ..address import Address, is_ollama_cloud, resolve_address, with_credentials
from ..errors import ConfigurationError
from .names import configuration_error, unknown_name

__all__ = ["ConnectionSettings", "Timeouts"]

_S = TypeVar("_S", bound="ConnectionSettings")

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# h11 takes no others, and shows the value in its error.
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_OWN_HEADERS = ("accept-encoding", "content-encoding", "content-length", "content-type", "transfer-encoding")


class Timeouts(BaseModel):
    """Seconds that each part of a call may take; None means no limit. Only after `connect` it is tried again.

    connect: TCP and TLS. answer: an exchange that is not streamed, from the request to its last byte (for
    look-ups such as /api/show a minute at most). first_byte: from the request to the end of a streamed
    answer's head, which includes the server's queue, loading the model and reading the prompt. idle: between
    two pieces of an answer. pool: waiting for a free connection. total: the whole call with its queue,
    retries and batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    connect: float | None = Field(5.0, gt=0)
    answer: float | None = Field(900.0, gt=0)
    first_byte: float | None = Field(600.0, gt=0)
    idle: float | None = Field(300.0, gt=0)
    pool: float | None = Field(60.0, gt=0)
    total: float | None = Field(None, gt=0)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise configuration_error(type(self), error) from None


def _sendable_key(key: str, name: str = "") -> str:
    if re.search(r"[^\x21-\x7e]", key):
        raise ValueError(f"{name}holds a space, a line break or a character outside ASCII")
    return key


class ConnectionSettings(BaseModel):
    """Where the server is and how to talk to it.

    Raises ConfigurationError for anything that cannot work; nothing falls back to localhost.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    base_url: str | None = Field(
        None,
        title="Base URL",
        description="Address of the Ollama server. Unset: `OLLAMA_HOST` as Ollama's own client reads it, "
        "else http://localhost:11434.",
    )
    api_key: SecretStr | None = Field(
        None, title="API Key", description="Sent as a Bearer token.", exclude=True, repr=False
    )
    api_key_from_env: bool = Field(
        False, description="Use `OLLAMA_API_KEY` for this address too, not only for ollama.com."
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="Sent with every request.", exclude=True, repr=False
    )
    timeout: float | Timeouts | None = Field(
        None, description="Seconds for a whole exchange, or a `Timeouts` to set each phase."
    )
    max_retries: int = Field(2, ge=0, le=100, description="How often a transient failure is tried again.")
    max_connections: int = Field(100, ge=1, description="Connections of one object to its server at once.")
    verify: Any = Field(
        True, description="TLS: True, False (loud), a path to a CA bundle, or an ssl.SSLContext.", repr=False
    )
    proxy: SecretStr | None = Field(None, description="URL of a proxy to use.", exclude=True, repr=False)
    trust_env: bool = Field(
        True, description="Honour HTTP_PROXY and its kin; loopback and private addresses bypass them."
    )
    follow_redirects: bool = Field(False, description="Follow 307 and 308 within the same origin.")
    http_backend: Literal["httpx", "aiohttp"] = Field(
        "httpx", description="Transport of async calls; aiohttp needs the extra `aiohttp`."
    )
    http_client: Any = Field(
        None, description="An httpx.Client to use instead of an own one.", exclude=True, repr=False
    )
    http_async_client: Any = Field(
        None, description="An httpx.AsyncClient to use instead of an own one.", exclude=True, repr=False
    )

    _address: Address = PrivateAttr()
    _resolved_for: tuple[str | None, bool] = PrivateAttr((None, False))
    # Counts changes of the connection, so that clients know when to connect anew.
    _revision: int = PrivateAttr(0)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise configuration_error(type(self), error) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).model_fields:
            self._set_other(name, value)
            return
        before, were_set = dict(self.__dict__), set(self.model_fields_set)
        private = dict(self.__pydantic_private__ or {})
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            # A failed check across fields comes after pydantic stored the value.
            self.__dict__.update(before)
            self.model_fields_set.intersection_update(were_set)
            self.__pydantic_private__ = private
            raise configuration_error(type(self), error) from None
        if name in ConnectionSettings.model_fields:
            self._revision += 1

    def _set_other(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValueError:
            if hasattr(type(self), name):
                raise
            raise ConfigurationError(
                f"{type(self).__name__}: {unknown_name(name, type(self).model_fields)}"
            ) from None

    def __deepcopy__(self: _S, memo: dict[int, Any] | None = None) -> _S:
        memo = {} if memo is None else memo
        # Shared with the copy: what holds sockets and locks cannot be copied.
        for name in ("verify", "http_client", "http_async_client"):
            value = self.__dict__.get(name)
            if value is not None:
                memo[id(value)] = value
        return super().__deepcopy__(memo)

    @property
    def address(self) -> Address:
        """The server's address and where it came from."""
        return self._address

    @property
    def timeouts(self) -> Timeouts:
        """Each phase's timeout; a plain number is the total."""
        if isinstance(self.timeout, Timeouts):
            return self.timeout
        return Timeouts(total=self.timeout)

    def explicit(self, *, fields: type[ConnectionSettings] | None = None) -> dict[str, Any]:
        """The values that were set, secrets included, as keyword arguments for a settings class.

        fields: only what this class has too.
        """
        known = (fields or type(self)).model_fields
        return {name: getattr(self, name) for name in self.model_fields_set if name in known}

    @classmethod
    def from_settings(cls: type[_S], settings: ConnectionSettings, **changes: Any) -> _S:
        """The same settings in this class, with changes: `ChatOllamaDify.from_settings(settings)`."""
        return cls(**{**settings._handed_on(cls._settings_part()), **changes})

    def _handed_on(self, fields: type[ConnectionSettings]) -> dict[str, Any]:
        """`explicit`, with credentials of the address back inside it, so that they stay with their server."""
        values = self.explicit(fields=fields)
        authorization = self._address.authorization
        headers = values.get("headers", {})
        if authorization is None or headers.get("Authorization") != authorization:
            return values
        values["headers"] = {name: value for name, value in headers.items() if name != "Authorization"}
        if self.base_url is not None:
            values["base_url"] = with_credentials(self.base_url, authorization)
        return values

    @classmethod
    def _settings_part(cls) -> type[ConnectionSettings]:
        """The settings class an adapter inherits from: the first of its bases that is ours."""
        ours = __name__.partition(".")[0]
        return next(
            base
            for base in cls.__mro__
            if base.__module__.partition(".")[0] == ours and issubclass(base, ConnectionSettings)
        )

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(
                    f"header {name!r} holds a character that HTTP does not allow (a line break, a space at "
                    "an end, anything outside ASCII)"
                )
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"header {name!r} is set by the client itself; leave it out")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("the same header is given twice, in different case")
        return dict(headers)

    @field_validator("timeout")
    @classmethod
    def _check_timeout(cls, timeout: float | Timeouts | None) -> float | Timeouts | None:
        if isinstance(timeout, (int, float)) and timeout <= 0:
            raise ValueError("is a number of seconds greater than 0; None means no limit")
        return timeout

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None or not key.get_secret_value():
            return None
        return SecretStr(_sendable_key(key.get_secret_value()))

    @model_validator(mode="after")
    def _resolve(self) -> ConnectionSettings:
        """Read the environment, and move credentials out of the address; again only when those change."""
        asked = (self.base_url, self.api_key_from_env)
        known = (self.__pydantic_private__ or {}).get("_address")
        if known is None or asked != self._resolved_for:
            self._take_address(known, resolve_address(self.base_url, os.environ))
        if self.api_key is None and (self.api_key_from_env or is_ollama_cloud(self._address.url)):
            key = os.environ.get("OLLAMA_API_KEY", "").strip()
            self.__dict__["api_key"] = SecretStr(_sendable_key(key, "OLLAMA_API_KEY ")) if key else None
            # Belongs to this address only, so it is none of the values that were set.
            self.model_fields_set.discard("api_key")
        self._resolved_for = (self.base_url, self.api_key_from_env)
        return self

    def _take_address(self, old: Address | None, new: Address) -> None:
        """Use an address; credentials that came with the old one are not sent to the new one."""
        values = self.__dict__
        if self.base_url is not None:
            values["base_url"] = new.url
        headers = dict(self.headers)
        if old is not None and old.url != new.url:
            if "api_key" not in self.model_fields_set:
                values["api_key"] = None
            if old.authorization is not None and headers.get("Authorization") == old.authorization:
                del headers["Authorization"]
        if new.authorization and not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"] = new.authorization
            self.model_fields_set.add("headers")
        if headers != self.headers:
            values["headers"] = headers
        self._address = new
