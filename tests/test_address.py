"""Addresses: base_url, OLLAMA_HOST as Ollama's own client reads it, and never a fall back to localhost."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify.address import (
    Address,
    is_loopback,
    is_ollama_cloud,
    is_private,
    parse_base_url,
    parse_ollama_host,
    resolve_address,
    without_credentials,
)
from ollama_dify.errors import ConfigurationError

# the first part is Ollama's own table (envconfig), with the connecting address where it differs
OLLAMA_HOST = {
    "": "http://127.0.0.1:11434",
    "1.2.3.4": "http://1.2.3.4:11434",
    ":1234": "http://127.0.0.1:1234",
    "1.2.3.4:1234": "http://1.2.3.4:1234",
    "example.com": "http://example.com:11434",
    "example.com:1234": "http://example.com:1234",
    ":0": "http://127.0.0.1:0",
    ":66000": "http://127.0.0.1:11434",
    ":-1": "http://127.0.0.1:11434",
    "[::1]": "http://[::1]:11434",
    "[::]": "http://[::1]:11434",
    "::1": "http://[::1]:11434",
    "[::1]:1337": "http://[::1]:1337",
    " 1.2.3.4 ": "http://1.2.3.4:11434",
    '"1.2.3.4"': "http://1.2.3.4:11434",
    ' " 1.2.3.4 " ': "http://1.2.3.4:11434",
    "'1.2.3.4'": "http://1.2.3.4:11434",
    "http://1.2.3.4": "http://1.2.3.4:80",
    "http://1.2.3.4:4321": "http://1.2.3.4:4321",
    "https://1.2.3.4": "https://1.2.3.4:443",
    "https://1.2.3.4:4321": "https://1.2.3.4:4321",
    "https://example.com/ollama": "https://example.com:443/ollama",
    "ollama.com": "https://ollama.com:443",
    # beyond Ollama's own table
    "ollama.com:11434": "http://ollama.com:11434",
    "http://ollama.com": "http://ollama.com:80",
    "https://ollama.com": "https://ollama.com:443",
    "0.0.0.0": "http://127.0.0.1:11434",
    "0.0.0.0:8080": "http://127.0.0.1:8080",
    "::": "http://[::1]:11434",
    "[::]:8080": "http://[::1]:8080",
    "0:0:0:0:0:0:0:1": "http://[::1]:11434",
    "2001:DB8::A": "http://[2001:db8::a]:11434",
    "::ffff:1.2.3.4": "http://1.2.3.4:11434",
    "fe80::1%eth0": "http://[fe80::1%eth0]:11434",
    "[fe80::1%eth0]": "http://[fe80::1%eth0]:11434",
    "[fe80::1%25eth0]:1234": "http://[fe80::1%eth0]:1234",
    "host:": "http://host:11434",
    "host:abc": "http://host:11434",
    "host:65536": "http://host:11434",
    "http://host:65536": "http://host:80",
    "host:+80": "http://host:80",
    "host:99999999999999999999": "http://host:11434",
    "host:1_0": "http://host:11434",
    "host:٣": "http://host:11434",
    "host/a/b": "http://host:11434/a/b",
    "host//a///b": "http://host:11434/a/b",
    "host:1234/a/b/": "http://host:1234/a/b",
    "/prefix": "http://127.0.0.1:11434/prefix",
    "host/api": "http://host:11434",
    "\thost\n": "http://host:11434",
    "GPU-Box": "http://gpu-box:11434",
    "bücher.example": "http://xn--bcher-kva.example:11434",
}


@pytest.mark.parametrize(("text", "url"), OLLAMA_HOST.items(), ids=[ascii(text) for text in OLLAMA_HOST])
def test_ollama_host(text: str, url: str) -> None:
    assert parse_ollama_host(text) == Address(url, None, "OLLAMA_HOST")


BASE_URL = {
    "http://localhost:11434": "http://localhost:11434",
    "http://192.168.1.100:11434": "http://192.168.1.100:11434",
    "http://localhost:11434/": "http://localhost:11434",
    "http://localhost:11434//": "http://localhost:11434",
    "http://localhost:11434/api": "http://localhost:11434",
    "http://localhost:11434/v1": "http://localhost:11434",
    "https://example.com/ollama": "https://example.com/ollama",
    "https://example.com/ollama/api": "https://example.com/ollama",
    "https://example.com/api/ollama": "https://example.com/api/ollama",
    "https://example.com/my-api": "https://example.com/my-api",
    "https://example.com/a b".replace(" ", "%20"): "https://example.com/a%20b",
    "https://example.com/ä": "https://example.com/%C3%A4",
    "http://gpu-box": "http://gpu-box",
    "HTTPS://GPU-Box": "https://gpu-box",
    "gpu-box": "http://gpu-box:11434",
    "gpu-box:8080": "http://gpu-box:8080",
    "gpu-box/ollama/": "http://gpu-box:11434/ollama",
    "gpu_box": "http://gpu_box:11434",
    "localhost:11434/api": "http://localhost:11434",
    "192.168.1.5": "http://192.168.1.5:11434",
    "::1": "http://[::1]:11434",
    "[::1]": "http://[::1]:11434",
    "[::1]:8080": "http://[::1]:8080",
    "http://[fe80::1%25eth0]:11434": "http://[fe80::1%eth0]:11434",
    "http://0.0.0.0:11434": "http://127.0.0.1:11434",
    "http://[::]:11434": "http://[::1]:11434",
    "ollama.com": "https://ollama.com",
    "  http://gpu-box:11434  ": "http://gpu-box:11434",
    "http://bücher.example:11434": "http://xn--bcher-kva.example:11434",
    "http://日本語.jp": "http://xn--wgv71a119e.jp",
    "http://faß.example": "http://xn--fa-hia.example",
    "http://example.com.:11434": "http://example.com.:11434",
}


@pytest.mark.parametrize(("text", "url"), BASE_URL.items(), ids=[ascii(text) for text in BASE_URL])
def test_base_url(text: str, url: str) -> None:
    address = parse_base_url(text)
    assert address == Address(url, None, "base_url")
    assert parse_base_url(address.url) == address


BAD = {
    "": "is empty",
    "   ": "is empty",
    "gpu-box:70000": "port '70000'",
    "gpu-box:0": "port '0'",
    "gpu-box:": "port ''",
    "gpu-box:-1": "port '-1'",
    "http://gpu-box:٣": "port",
    "ftp://x": "only http and https",
    "localhost://x": "only http and https",
    "://x": "only http and https",
    "http://": "no host",
    "http:///api": "no host",
    "http:gpu-box": "port 'gpu-box'",
    "http:/gpu-box": "no host",
    "https//gpu-box": "no host",
    "https": "no host",
    "/api": "no host",
    "//gpu-box": "no host",
    ":11434": "no host",
    "http://gpu-box?x=1": "query",
    "http://gpu-box/a?key=hunter2": "query",
    "http://gpu-box/#a": "query or a fragment",
    "http://gpu-box/a b": "space",
    "http://gpu-box\n": "control character",
    "http://gpu-box\r\nX-Evil: 1": "control character",
    "http://gpu\0box": "control character",
    "http://gpu-box\x85": "control character",
    "http://gpu-box/\ud800": "control character",
    "http:\\\\gpu-box": "backslash",
    '"http://gpu-box"': "only http and https",
    "http://gpu,box": "valid host",
    "http://-gpu": "valid host",
    "http://gpu..box": "valid host",
    "http://" + "a" * 64: "valid host",
    "http://1.2.3": "four numbers",
    "http://256.1.1.1": "four numbers",
    "http://[::1": "brackets",
    "http://[gpu]": "valid host",
    "http://::1": "without brackets",
    "http://::1:8080": "without brackets",
    "http://<your-ollama-endpoint-domain>:11434": "valid host",
    "http://xn--\u00fc.example": "valid host",
    "http://me:hunter2@gpu-box:70000": "port '70000'",
    "http://me:hunter2@": "no host",
    "http://me:hun/ter2@gpu-box": "slash is written %2F",
    "me:hun?ter2/@gpu-box": "slash is written %2F",
}


@pytest.mark.parametrize(("text", "why"), BAD.items(), ids=[ascii(text)[:50] for text in BAD])
def test_bad_base_url(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_base_url(text)
    shown = str(caught.value)
    assert why in caught.value.message
    assert caught.value.message.startswith("base_url ")
    assert "http://192.168.1.100:11434" in shown
    assert "ter2" not in shown
    assert "hun" not in shown
    assert "me:" not in shown


BAD_HOSTS = ("ftp://x", "a b", "host?x", "http://a..b", "[gpu", "host/a#b", "1.2.3", "//gpu", " //gpu/x")


@pytest.mark.parametrize("text", BAD_HOSTS)
def test_bad_ollama_host_never_becomes_localhost(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\AOLLAMA_HOST "):
        resolve_address(None, {"OLLAMA_HOST": text})


@pytest.mark.parametrize(
    ("text", "port", "used"),
    [
        ("host:abc", "abc", "11434"),
        ("host:", "", "11434"),
        ("https://host:70000", "70000", "443"),
        ("host:80", None, None),
        ("host", None, None),
    ],
)
def test_a_repaired_port_is_told(
    text: str, port: str | None, used: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    parse_ollama_host(text)
    told = [f"OLLAMA_HOST has the port {port!r}, which is none: {used} is used instead."]
    assert [record.getMessage() for record in caplog.records] == ([] if port is None else told)


@pytest.mark.parametrize("parse", [parse_base_url, parse_ollama_host])
@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("gpu\uff1a11434", "\uff1a", ":"),
        ("http\uff1a//gpu", "\uff1a", ":"),
        ("http:\uff0f\uff0fgpu", "\uff0f", "/"),
        ("http://gpu:\uff11\uff11434", "\uff11", "1"),
        ("http://192.168.1.\uff15:11434", "\uff15", "5"),
        ("http://192\u3002168.1.5", "\u3002", "."),
        ("http://gpu\uff0fapi", "\uff0f", "/"),
    ],
    ids=ascii,
)
def test_full_width_characters(parse: Any, text: str, wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert f"holds the full-width character {wrong!r} of an input method; type {right!r}" in str(caught.value)
    assert parse("http://me:\uff11@gpu").host == "gpu"


ORIGINS = {
    "http://GPU-box": "http://gpu-box:80",
    "gpu-box": "http://gpu-box:11434",
    "https://me:pw@h/x": "https://h:443",
    "http://[fe80::1%eth0]:1": "http://[fe80::1%eth0]:1",
}


@pytest.mark.parametrize(("url", "origin"), ORIGINS.items(), ids=ORIGINS)
def test_origin(url: str, origin: str) -> None:
    assert parse_base_url(url).origin == origin


@pytest.mark.parametrize("parse", [parse_base_url, parse_ollama_host])
@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("http://me:pw@gpu-box:11434/x", "me:pw"),
        ("me:pw@gpu-box:11434/x", "me:pw"),
        ("http://me@gpu-box:11434/x", "me:"),
        ("http://m%40e:p%3Aw%2F@gpu-box:11434/x", "m@e:p:w/"),
        ("http://me:p@w?#@gpu-box:11434/x", "me:p@w?#"),
        ("http://mé:pässword@gpu-box:11434/x", "mé:pässword"),
    ],
)
def test_credentials_become_a_header_and_are_not_shown(parse: type[Address], text: str, pair: str) -> None:
    address = parse(text)
    assert isinstance(address, Address)
    assert address.url == "http://gpu-box:11434/x"
    assert address.authorization == "Basic " + base64.b64encode(pair.encode()).decode()
    assert "Basic" not in repr(address)


@pytest.mark.parametrize(
    ("base_url", "environ", "address"),
    [
        (None, {}, Address("http://localhost:11434", None, "default")),
        (None, {"OLLAMA_HOST": ""}, Address("http://localhost:11434", None, "default")),
        (None, {"OLLAMA_HOST": ' "" '}, Address("http://localhost:11434", None, "default")),
        (None, {"OLLAMA_HOST": "gpu-box"}, Address("http://gpu-box:11434", None, "OLLAMA_HOST")),
        ("other", {"OLLAMA_HOST": "gpu-box"}, Address("http://other:11434", None, "base_url")),
    ],
)
def test_order(base_url: str | None, environ: dict[str, str], address: Address) -> None:
    assert resolve_address(base_url, environ) == address


HOSTS = {
    # host: (is_loopback, is_private)
    "localhost": (True, True),
    "LOCALHOST.": (True, True),
    "api.localhost": (True, True),
    "127.0.0.1": (True, True),
    "::1": (True, True),
    "[::1]": (True, True),
    "::ffff:127.0.0.1": (True, True),
    "http://localhost:11434/x": (True, True),
    "http://[::1]:11434": (True, True),
    "10.1.2.3": (False, True),
    "172.17.0.1": (False, True),
    "172.32.0.1": (False, False),
    "192.168.1.100": (False, True),
    "169.254.1.1": (False, True),
    "100.100.1.1": (False, True),
    "fd00::1": (False, True),
    "fe80::1%eth0": (False, True),
    "gpu-box": (False, True),
    "gpu-box.local": (False, True),
    "host.docker.internal": (False, True),
    "nas.lan": (False, True),
    "example.com": (False, False),
    "localhost.example.com": (False, False),
    "8.8.8.8": (False, False),
    "2606:4700::1": (False, False),
    "": (False, False),
}


@pytest.mark.parametrize(("host", "expected"), HOSTS.items(), ids=[host or "empty" for host in HOSTS])
def test_hosts(host: str, expected: tuple[bool, bool]) -> None:
    assert (is_loopback(host), is_private(host)) == expected


CLOUD = ("ollama.com", "OLLAMA.com.", "api.ollama.com", "https://ollama.com:443/x")
NO_CLOUD = ("ollama.com.evil.example", "notollama.com", "https://evil.example/ollama.com", "ollama")


@pytest.mark.parametrize("host", CLOUD + NO_CLOUD)
def test_cloud(host: str) -> None:
    assert is_ollama_cloud(host) is (host in CLOUD)


def test_masking() -> None:
    assert without_credentials("http://a:b@c/d?e") == "http://***@c/d?…"
    assert without_credentials("a:b@c") == "***@c"
    assert len(without_credentials("http://" + "a" * 500)) == 200


@given(st.text(max_size=40) | st.text("htp:/.@[]%#?01af", max_size=20))
def test_any_text_gives_an_address_or_a_configuration_error(text: str) -> None:
    for parse in (parse_base_url, parse_ollama_host):
        try:
            address = parse(text)
        except ConfigurationError:
            continue
        assert address.url.isascii()
        assert address.url.startswith(("http://", "https://"))
        assert address.host
