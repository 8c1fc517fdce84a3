"""Credentials that store the server they were given for, so that no other server receives them. Pure.

Settings are rebuilt from their values in many ways (`configurable_fields`, `from_settings`, `model_copy`,
dumps). Only the values are always passed on, so each value stores its origin.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import SecretStr

from ..address import Address, is_ollama_cloud, resolve_address
from ..errors import ConfigurationError

__all__ = ["BoundHeaders", "BoundText", "authorization", "bind", "bound_values", "check_key", "check_origins"]

CLOUD_KEY = "OLLAMA_API_KEY"
_B = TypeVar("_B", bound="SecretStr | BoundText | BoundHeaders")


class BoundText(str):
    """A `base_url`, with the Authorization header made from its user and password; or an `api_key_env`."""

    authorization: str | None = None


class BoundHeaders(dict[str, str]):
    """`headers`."""


def bind(checked: _B, given: Any) -> _B:
    """The new value from validation, with the server of the old one."""
    vars(checked)["origin"] = getattr(given, "origin", None)
    return checked


def check_origins(values: Mapping[str, Any], origin: str) -> None:
    """Store the server in new credentials. Raises ConfigurationError for those of another server."""
    stale = []
    for name in ("api_key", "api_key_env", "headers"):
        value = values.get(name)
        if not isinstance(value, (SecretStr, BoundText, BoundHeaders)):
            continue  # None, or not validated
        known = vars(value).get("origin")
        if known is None or not value:
            vars(value)["origin"] = origin
        elif known != origin:
            stale.append(name)
    if not stale:
        return
    what = f"{' and '.join(stale)} {'was' if len(stale) == 1 else 'were'}"
    again = ", ".join(f"{name}=…" for name in stale)
    without = ", ".join("headers={}" if name == "headers" else f"{name}=None" for name in stale)
    raise ConfigurationError(
        f"{what} given for {vars(values[stale[0]])['origin']} and would now go to {origin}.",
        hint="Give the address and its credentials in one step, as plain values: "
        f"from_settings(…, base_url=…, {again}); {without} sends none.",
    )


def check_key(key: str, name: str = "") -> str:
    """The key, valid for a header. Raises ValueError without showing the key."""
    if re.search(r"[^\x21-\x7e]", key):
        raise ValueError(f"{name}holds a space, a line break or a character outside ASCII")
    return key


def authorization(key: str | None, variable: str | None, address: Address) -> str | None:
    """Value of the Authorization header.

    The first of: the address's user and password, the key, the named variable, and for https://ollama.com
    its own variable. Raises ConfigurationError if the variable is not set or is not a usable key.
    """
    if address.authorization is not None:
        return address.authorization
    if key is not None:
        return f"Bearer {key}"
    if variable is None and not (address.url.startswith("https:") and is_ollama_cloud(address.url)):
        return None
    found = os.environ.get(variable or CLOUD_KEY, "").strip()
    if not found and variable is not None:
        raise ConfigurationError(
            f"api_key_env={str(variable)!r}, but the environment variable {variable} is not set.",
            hint=f"Set {variable} where the program runs, or give api_key= instead.",
        )
    try:
        return f"Bearer {check_key(found, f'{variable or CLOUD_KEY} ')}" if found else None
    except ValueError as error:
        raise ConfigurationError(f"The environment variable {error}.") from None


def bound_values(dumped: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dump, bound to its own address before changes are applied."""
    name = dumped.get("api_key_env")
    if not isinstance(name, str):
        return dict(dumped)
    bound = bind(BoundText(name), None)
    check_origins({"api_key_env": bound}, resolve_address(dumped.get("base_url"), os.environ).origin)
    return {**dumped, "api_key_env": bound}
