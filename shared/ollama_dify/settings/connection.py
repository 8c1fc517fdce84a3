"""Where the server is and how to talk to it: the root of all settings, and of every adapter."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from ..address import Address, parse_base_url, resolve_address
from ..errors import ConfigurationError
from .credentials import BoundHeaders, BoundText, authorization, bind, check_key, check_origins
from .names import configuration_error, unknown_name

__all__ = ["ConnectionSettings", "Timeouts"]

if TYPE_CHECKING:
    # For type checkers, which use a field's type as the type of the argument.
    Secret = SecretStr | str
else:
    Secret = SecretStr

_CONNECTING = ("api_key", "api_key_env", "timeout", "max_connections", "proxy", "trust_env")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# h11 accepts no others, and would show the value in its error.
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_OWN_HEADERS = ("accept-encoding", "content-encoding", "content-length", "content-type", "transfer-encoding")


class Timeouts(BaseModel):
    """Seconds that each part of a call may take; None: no limit. Only a `connect` timeout is retried.

    connect: TCP and TLS. answer: an exchange that is not streamed, from the request to its last byte (at most
    a minute for look-ups such as /api/show). first_byte: from the request to the end of a streamed answer's
    headers; includes the server's queue, loading the model and reading the prompt. idle: between two pieces
    of an answer. pool: waiting for a free connection. total: the whole call with its queue, retries and
    batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    connect: float | None = Field(default=5.0, gt=0)
    answer: float | None = Field(default=900.0, gt=0)
    first_byte: float | None = Field(default=600.0, gt=0)
    idle: float | None = Field(default=300.0, gt=0)
    pool: float | None = Field(default=60.0, gt=0)
    total: float | None = Field(default=None, gt=0)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise configuration_error(type(self), error) from None


@lru_cache(maxsize=64)
def _with_total(total: float | None) -> Timeouts:
    return Timeouts(total=total)


class ConnectionSettings(BaseModel):
    """Where the server is and how to talk to it.

    Raises ConfigurationError for anything that cannot work; nothing falls back to localhost.

    `api_key`, `api_key_env` and `headers` belong to the server (scheme, host, port) they were given with.
    Changing the address alone is an error, in every way to do it (assignment, `from_settings`,
    `for_embedding`, `model_copy`, LangChain's `configurable_fields`, LlamaIndex's `from_dict`): no other
    server receives them, and none is dropped silently. Give address and credentials in one step, or None.
    User and password inside an address belong to it. `http_client` and `proxy` are used as they are.
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
        default=None, description="The server. Unset: `OLLAMA_HOST`, else http://localhost:11434."
    )
    api_key: Secret | None = Field(
        default=None,
        description="Sent as a Bearer token. Unset: for https://ollama.com `OLLAMA_API_KEY`.",
        exclude=True,
        repr=False,
    )
    api_key_env: str | None = Field(
        default=None, description="Environment variable that holds the key; read when needed, never stored."
    )
    headers: dict[str, str] = Field(
        default_factory=BoundHeaders, description="Sent with every request.", exclude=True, repr=False
    )
    timeout: Annotated[float, Field(gt=0)] | Timeouts | None = Field(
        default=None, description="Seconds for a whole exchange, or a `Timeouts` to set each phase."
    )
    max_retries: int = Field(default=2, ge=0, le=100, description="Tries more after a transient failure.")
    max_connections: int = Field(default=100, ge=1, description="Connections of one object at once.")
    verify: Any = Field(
        default=True, description="TLS: True, False (loud), a CA bundle's path, an SSLContext.", repr=False
    )
    proxy: Secret | None = Field(default=None, description="URL of a proxy to use.", exclude=True, repr=False)
    trust_env: bool = Field(
        default=True, description="Honour HTTP_PROXY and its kin; loopback and private addresses bypass them."
    )
    follow_redirects: bool = Field(default=False, description="Follow 307 and 308 within the same origin.")
    http_client: Any = Field(
        default=None, description="An httpx.Client to use instead.", exclude=True, repr=False
    )
    http_async_client: Any = Field(
        default=None, description="An httpx.AsyncClient to use instead.", exclude=True, repr=False
    )

    # The value of `OLLAMA_HOST` at first use, so that copies and pickles use the same server.
    _environment: Address | None = PrivateAttr(default=None)
    _built: bool = PrivateAttr(default=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise configuration_error(type(self), error) from None
        # Values that a framework's validators filled in do not count as set.
        object.__setattr__(self, "__pydantic_fields_set__", self.model_fields_set & set(values))
        self._built = True

    def __setattr__(self, name: str, value: Any) -> None:
        private = self.__pydantic_private__
        if name not in type(self).model_fields:
            if not name.startswith("_") and not hasattr(type(self), name):
                told = unknown_name(name, type(self).model_fields)
                raise ConfigurationError(f"{type(self).__name__}: {told}")
            super().__setattr__(name, value)
        elif (private and private["_built"]) or name in self._settings_part().model_fields:
            self._take_over(self._changed({name: value}))
        else:
            # A framework's validator sets a field of its own while the object is created.
            self.__dict__[name] = value

    def _changed(self, update: Mapping[str, Any]) -> Self:
        """A copy with other values, all checked together; self stays as it is."""
        kind = type(self)
        made = kind.__new__(kind)
        # Other entries of `__dict__`, such as cached properties, were computed from the old values.
        values = {name: value for name, value in self.__dict__.items() if name in kind.model_fields}
        # Private attributes do not take part in validation.
        context = {"environment": self._environment}
        try:
            kind.__pydantic_validator__.validate_python(
                {**values, **update}, self_instance=made, context=context
            )
        except ValidationError as error:
            raise configuration_error(kind, error) from None
        object.__setattr__(made, "__pydantic_fields_set__", self.model_fields_set | set(update))
        return made

    def _take_over(self, other: Self) -> None:
        object.__setattr__(self, "__dict__", other.__dict__)
        object.__setattr__(self, "__pydantic_fields_set__", other.model_fields_set)
        self._environment = other._environment

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, checked as in the constructor."""
        copied = super().model_copy(deep=deep)
        if update:
            copied._take_over(copied._changed(update))
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        # Shared with the copy, because objects with sockets and locks cannot be copied.
        for name in ("verify", "http_client", "http_async_client"):
            value = self.__dict__.get(name)
            if value is not None:
                memo[id(value)] = value
        return super().__deepcopy__(memo)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [item for item in super().__repr_args__() if item[0] in self.model_fields_set]

    @property
    def address(self) -> Address:
        """The server's address and where it came from."""
        url = self.base_url
        if isinstance(url, BoundText):
            return Address(str(url), url.authorization, "base_url")
        if url is not None:
            return parse_base_url(url)  # it was not validated
        if self._environment is None:
            self._environment = resolve_address(None, os.environ)
        return self._environment

    @property
    def timeouts(self) -> Timeouts:
        """Each phase's timeout; a plain number is the total."""
        return self.timeout if isinstance(self.timeout, Timeouts) else _with_total(self.timeout)

    def secret(self, name: Literal["api_key", "proxy"]) -> str | None:
        """The text of a secret."""
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    def sent_headers(self) -> dict[str, str]:
        """The headers of every request, credentials among them, names in lower case; reads the environment.

        Raises ConfigurationError for an `api_key_env` that is not set.
        """
        # Checked again, because values can be set without validation.
        check_origins(self.__dict__, self.address.origin)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "authorization" not in headers:
            found = authorization(self.secret("api_key"), self.api_key_env, self.address)
            if found is not None:
                headers["authorization"] = found
        return headers

    def connection_values(self) -> tuple[Any, ...]:
        """The values a connection depends on, hashable: while equal, a client keeps its connections."""
        values = self.__dict__
        plain = [values[name] for name in _CONNECTING]
        own = (self.verify, self.http_client, self.http_async_client)
        headers = SecretStr(repr(self.headers)) if self.headers else None
        known = (self.address, headers, self.follow_redirects, values.get("max_concurrency"))
        return (*known, *plain, *map(id, own))

    def explicit(self, *, fields: type[ConnectionSettings] | None = None) -> dict[str, Any]:
        """The values that were set, secrets included, as keyword arguments for a settings class.

        fields: only values that this class has a field for.
        """
        known = (fields or type(self)).model_fields
        return {name: getattr(self, name) for name in self.model_fields_set if name in known}

    @classmethod
    def from_settings(cls, settings: ConnectionSettings, **changes: Any) -> Self:
        """The same settings in this class, with changes: `ChatOllamaDify.from_settings(settings)`.

        Raises ConfigurationError for settings of another type of model.
        """
        part = cls._settings_part()
        is_ours = isinstance(settings, ConnectionSettings)
        given = settings._settings_part() if is_ours else type(settings)
        if is_ours and (issubclass(given, part) or issubclass(part, given)):
            return cls(**{**settings.explicit(fields=part), **changes})
        hint = part._hint if is_ours else f"Make them first: {part.__name__}(**values)."
        raise ConfigurationError(
            f"{cls.__name__}.from_settings takes {part.__name__}, not {given.__name__}.", hint=hint
        )

    # What to do with settings of another type of model.
    _hint: ClassVar[str | None] = None

    @classmethod
    def _settings_part(cls) -> type[ConnectionSettings]:
        """The settings class an adapter inherits from: the first of its bases that is ours."""
        ours = (base for base in cls.__mro__ if base.__module__.startswith("ollama_dify."))
        return next(base for base in ours if issubclass(base, ConnectionSettings))

    @field_validator("base_url", mode="wrap")
    @classmethod
    def _check_base_url(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> BoundText | None:
        if value is None or isinstance(value, BoundText):
            return value
        address = parse_base_url(handler(value))
        url = BoundText(address.url)
        url.authorization = address.authorization
        return url

    @field_serializer("base_url")
    def _without_password(self, value: str | None) -> str | None:
        return None if value is None else str(value)

    @field_validator("api_key", mode="wrap")
    @classmethod
    def _check_api_key(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> SecretStr | None:
        key = handler(value)
        return bind(SecretStr(check_key(key.get_secret_value())), value) if key else None

    @field_validator("api_key_env", mode="wrap")
    @classmethod
    def _check_api_key_env(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> BoundText | None:
        name = handler(value)
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # The value may be the key itself, so it is not shown.
            raise ValueError("is no name of an environment variable; a key itself goes into api_key=")
        return None if name is None else bind(BoundText(name), value)

    @field_validator("headers", mode="wrap")
    @classmethod
    def _check_headers(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> BoundHeaders:
        headers = handler(value)
        for name, text in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                raise ValueError(
                    f"header {name!r} holds a character that HTTP does not allow (a line break, a space at "
                    "an end, anything outside ASCII)"
                )
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"header {name!r} is set by the client itself; leave it out")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("the same header is given twice, in different case")
        return bind(BoundHeaders(headers), value)

    @model_validator(mode="after")
    def _check_credentials(self, info: ValidationInfo) -> ConnectionSettings:
        if info.context is not None:
            self._environment = info.context.get("environment")
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("api_key and api_key_env are two ways to give one key; give one of them")
        check_origins(self.__dict__, self.address.origin)
        return self
