"""Which image addresses may be fetched: nothing that leads into a private network."""

from __future__ import annotations

import pytest

from ollama_dify.errors import UnsupportedContentError
from ollama_dify.media.urls import ParsedUrl, check_image_url, check_public_address, is_public

PRIVATE_IPV4 = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255
192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.100 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1
255.255.255.255
"""
PRIVATE_IPV6 = """
:: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::10.0.0.1
64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:db8::1 2002:7f00:1::
2002:c0a8:101::1 3fff::1 fc00::1 fd12:3456::1 fe80::1 fe80::1%eth0 2606:4700::1%eth0 fec0::1 ff02::1
"""
PUBLIC = """
1.1.1.1 8.8.8.8 100.128.0.1 172.32.0.1 192.0.1.1 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::8.8.8.8
2606:4700:4700::1111 2a00:1450::1
"""


@pytest.mark.parametrize("ip", [*PRIVATE_IPV4.split(), *PRIVATE_IPV6.split(), "example.com", ""])
def test_private_addresses(ip: str) -> None:
    assert not is_public(ip)
    with pytest.raises(UnsupportedContentError, match=r"message 1, image 2: .*public internet"):
        check_public_address(ip, where="message 1, image 2")


@pytest.mark.parametrize("ip", PUBLIC.split())
def test_public_addresses(ip: str) -> None:
    assert is_public(ip)
    check_public_address(ip)


REFUSED = {
    **{f"http://{ip}/x.png": "public internet" for ip in PRIVATE_IPV4.split()},
    **{f"http://[{ip}]/x.png": "public internet" for ip in PRIVATE_IPV6.split()},
    "http://2130706433/": "valid host",
    "http://017700000001/": "valid host",
    "http://0x7f000001/": "unusual form",
    "http://0x7f.1/": "valid host",
    "http://0x7f.0x0.0x0.0x1/": "unusual form",
    "http://0177.0.0.1/": "valid host",
    "http://127.1/": "valid host",
    "http://127.0.0.1./": "valid host",
    "http://0/": "valid host",
    "http://8.8.8.8.8/": "valid host",
    "http://１２７.0.0.1/": "public internet",
    "http://127。0。0。1/": "public internet",
    "http://ⓛocalhost/": "local network",
    "http://localhost/": "local network",
    "http://LOCALHOST./": "local network",
    "http://a.localhost/": "local network",
    "http://printer.local/": "local network",
    "http://host.docker.internal:11434/": "local network",
    "http://metadata.google.internal/": "local network",
    "http://router.home.arpa/": "local network",
    "http://gpu-box/": "local network",
    "http://user:hunter2@example.com/": "credentials",
    "http://127.0.0.1\\@example.com/": "backslash",
    "http://example.com@127.0.0.1/": "credentials",
    "http://exa mple.com/": "space",
    "http://example.com/\r\nHost: x": "space",
    "http://example.com/\x7f": "control character",
    "http://example.com/\u3000": "space",
    "http://example.com:0/": "port 0",
    "http://example.com:70000/": "port 70000",
    "http://example.com:+80/": "host and port",
    "http://[::1/": "host and port",
    "http://[1.2.3.4]/": "valid host",
    "http://": "host and port",
    "http:example.com": "not an http",
    "//example.com/x.png": "not an http",
    "ftp://example.com/x.png": "not an http",
    "file:///etc/passwd": "not an http",
    "data:image/png;base64,AAAA": "not an http",
    "http://xn--a/": "local network",
    "http://-a.example/": "valid host",
    "http://a..example/": "valid host",
    "http://ex%61mple.com/": "valid host",
    "http://example.com/\ud800": "surrogate",
    "http://example.com/" + "a" * 9000: "too long",
}


@pytest.mark.parametrize(("url", "why"), REFUSED.items(), ids=[ascii(url)[:60] for url in REFUSED])
def test_addresses_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(UnsupportedContentError) as caught:
        check_image_url(url)
    assert why in caught.value.message
    assert "hunter2" not in str(caught.value)
    assert caught.value.hint


TAKEN = {
    "https://example.com": ("https://example.com/", "example.com", 443),
    "HTTP://Example.COM:80/a?b=c#d": ("http://example.com/a?b=c", "example.com", 80),
    "https://example.com.:8443/x": ("https://example.com:8443/x", "example.com", 8443),
    "http://8.8.8.8/x": ("http://8.8.8.8/x", "8.8.8.8", 80),
    "http://[2606:4700:0::1111]/": ("http://[2606:4700::1111]/", "2606:4700::1111", 80),
    "https://bücher.example/ä?q=é": (
        "https://xn--bcher-kva.example/%C3%A4?q=%C3%A9",
        "xn--bcher-kva.example",
        443,
    ),
    "https://example.com?x": ("https://example.com/?x", "example.com", 443),
    "https://example.com/%20?u=a@b": ("https://example.com/%20?u=a@b", "example.com", 443),
}


@pytest.mark.parametrize("url", TAKEN)
def test_addresses_that_are_taken_apart(url: str) -> None:
    sent, host, port = TAKEN[url]
    assert check_image_url(url) == ParsedUrl(sent, sent.partition(":")[0], host, port)
