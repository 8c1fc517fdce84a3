"""Images through both frameworks: every shape to the same bytes, everything else refused unopened."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    TextBlock,
)

import ollama_dify
from langchain_ollama_dify import OllamaDifyLLM
from ollama_dify import Image, UnsupportedContentError
from ollama_dify.media.urls import check_public_address
from ollama_dify.testing import SimulatedOllama

from .image_server import ImageServer, Names, image_server
from .image_server import images as served_images
from .ways import CHAT

IMAGES = Path(__file__).parent.parent / "data" / "images"
TLS = IMAGES.parent / "tls"
FILE = IMAGES / "png_rgb.png"
PNG = FILE.read_bytes()
TEXT = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{TEXT}"

every_way = pytest.mark.parametrize("way", CHAT)
four_ways = pytest.mark.parametrize(
    "way", ["langchain invoke", "langchain astream", "llamaindex chat", "llamaindex achat"]
)
both = pytest.mark.parametrize("frame", ["langchain invoke", "llamaindex chat"])
OPENED: list[str] = []


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and "canary" in arguments[0]:
        OPENED.append(arguments[0])


sys.addaudithook(_note_opened)


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server: SimulatedOllama) -> None:
    server.reset()


@pytest.fixture
def images() -> Iterator[ImageServer]:
    with image_server() as running:
        yield running


def from_openai(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


LANGCHAIN: dict[str, Callable[[], Any]] = {
    "openai": lambda: from_openai(URL),
    "openai with detail": lambda: {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
    "openai text": lambda: {"type": "image_url", "image_url": URL},
    "openai plain base64": lambda: from_openai(TEXT),
    "openai wrong label": lambda: from_openai(f"data:image/jpeg;base64,{TEXT}"),
    "openai no label": lambda: from_openai(f"data:;base64,{TEXT}"),
    "openai capital scheme": lambda: from_openai(f"DATA:image/png;base64,{TEXT}"),
    "openai with parameters": lambda: from_openai(f"data:image/png;name=a.png;base64,{TEXT}"),
    "openai responses": lambda: {"type": "input_image", "image_url": URL, "detail": "auto"},
    "v1 base64": lambda: {"type": "image", "base64": TEXT, "mime_type": "image/png"},
    "v1 base64 wrong label": lambda: {"type": "image", "base64": TEXT, "mime_type": "image/webp"},
    "v1 data url": lambda: {"type": "image", "url": URL},
    "v1 made by langchain": lambda: _created_block(),
    "v0 base64": lambda: {"type": "image", "source_type": "base64", "data": TEXT, "mime_type": "image/png"},
    "v0 data url": lambda: {"type": "image", "source_type": "url", "url": URL},
    "anthropic": lambda: {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": TEXT},
    },
    "anthropic url": lambda: {"type": "image", "source": {"type": "url", "url": URL}},
    "bedrock": lambda: {"image": {"format": "png", "source": {"bytes": PNG}}},
    "google": lambda: {"type": "media", "mime_type": "image/png", "data": PNG},
    "google base64": lambda: {"type": "media", "mime_type": "image/png", "data": TEXT},
    "bytes": lambda: {"type": "image", "image": PNG},
    "bytearray": lambda: {"type": "image", "image": bytearray(PNG)},
    "memoryview": lambda: {"type": "image", "image": memoryview(PNG)},
    "path object": lambda: {"type": "image", "path": FILE},
    "v1 base64 without a type": lambda: {"type": "image", "base64": TEXT},
    "v0 base64 without a type": lambda: {"type": "image", "source_type": "base64", "data": TEXT},
    "v1 file": lambda: {"type": "file", "mime_type": "image/png", "base64": TEXT},
    "v0 file": lambda: {"type": "file", "mime_type": "image/png", "data": TEXT},
    "bytes with a label": lambda: {"type": "image", "bytes": PNG, "mime_type": "image/png"},
    "our image": lambda: {"type": "image", "image": Image.from_path(FILE)},
    "our image from text": lambda: {"type": "image", "image": Image.from_base64(TEXT)},
}


def _created_block() -> Any:
    from langchain_core.messages.content import create_image_block

    return create_image_block(base64=TEXT, mime_type="image/png")


def restored(block: ImageBlock) -> ImageBlock:
    return ImageBlock.model_validate_json(block.model_dump_json())


LLAMAINDEX: dict[str, Callable[[], Any]] = {
    "bytes": lambda: ImageBlock(image=PNG),
    "base64": lambda: ImageBlock(image=TEXT.encode()),
    "bytes with a label": lambda: ImageBlock(image=PNG, image_mimetype="image/png"),
    "bytes with a wrong label": lambda: ImageBlock(image=PNG, image_mimetype="image/webp"),
    "bytes with detail": lambda: ImageBlock(image=PNG, detail="high"),
    "unvalidated": lambda: ImageBlock.model_construct(image=PNG, path=None, url=None),
    "dumped": lambda: ImageBlock.model_validate(ImageBlock(image=PNG).model_dump()),
    "json": lambda: restored(ImageBlock(image=PNG)),
    "file object": lambda: ImageBlock(image=io.BytesIO(PNG)),
    "file object of base64": lambda: ImageBlock(image=io.BytesIO(TEXT.encode())),
    "file object of a data url": lambda: ImageBlock(image=io.BytesIO(URL.encode())),
    "file object, read": lambda: ImageBlock(image=_read_through(io.BytesIO(PNG))),
    "resolved": lambda: ImageBlock(image=ImageBlock(path=FILE).resolve_image().read()),
    "path": lambda: ImageBlock(path=FILE),
    "path as text": lambda: ImageBlock(path=str(FILE)),
    "path with a label": lambda: ImageBlock(path=FILE, image_mimetype="image/jpeg"),
    "path, json": lambda: restored(ImageBlock(path=FILE)),
    "data url": lambda: ImageBlock(url=URL),
    "data url wrong label": lambda: ImageBlock(url=f"data:image/gif;base64,{TEXT}"),
    "data url with parameters": lambda: ImageBlock(url=f"data:image/png;name=a.png;base64,{TEXT}"),
    "data url, json": lambda: restored(ImageBlock(url=URL)),
    "data url as text": lambda: ImageBlock.model_construct(image=None, path=None, url=URL),
}


def _read_through(file: io.BytesIO) -> io.BytesIO:
    file.read()
    return file


def langchain_message(*blocks: Any) -> list[Any]:
    return [HumanMessage([{"type": "text", "text": "What is it?"}, *blocks])]


def llamaindex_message(*blocks: Any) -> list[Any]:
    return [ChatMessage(blocks=[TextBlock(text="What is it?"), *blocks])]


async def ask(server: SimulatedOllama, way: str, messages: list[Any], **values: Any) -> list[bytes]:
    """The bodies of what was asked of /api/chat."""
    kind, how = CHAT[way]
    given = {"model": "llava", "base_url": server.base_url, "max_retries": 0, **values}
    model = kind(**given)
    before = len(server.requests)
    try:
        await how(model, messages)
    finally:
        model.close()
        await model.aclose()
    return [request.raw for request in server.requests[before:] if request.path == "/api/chat"]


WIRE = {"role": "user", "content": "What is it?", "images": [TEXT]}
SHAPES = [
    *(pytest.param(f"langchain {way}", name) for way in ("invoke", "ainvoke") for name in LANGCHAIN),
    *(pytest.param(f"llamaindex {way}", name) for way in ("chat", "achat") for name in LLAMAINDEX),
]


def made(way: str, name: str) -> list[Any]:
    if way.startswith("langchain"):
        return langchain_message(LANGCHAIN[name]())
    return llamaindex_message(LLAMAINDEX[name]())


@pytest.mark.parametrize(("way", "name"), SHAPES)
async def test_each_shape_is_the_same_body(server: SimulatedOllama, way: str, name: str) -> None:
    (raw,) = await ask(server, way, made(way, name))
    (plain,) = await ask(server, "langchain invoke", langchain_message(from_openai(URL)))
    assert raw == plain
    assert json.loads(raw)["messages"] == [WIRE]


@every_way
async def test_each_way_sends_the_same_image(server: SimulatedOllama, way: str) -> None:
    shape = "openai" if way.startswith("langchain") else "bytes"
    (raw,) = await ask(server, way, made(way, shape))
    assert json.loads(raw)["messages"] == [WIRE]


@every_way
@pytest.mark.parametrize("mode", ["chat", "completion"])
async def test_a_web_address_is_the_same_body(
    server: SimulatedOllama, images: ImageServer, monkeypatch: pytest.MonkeyPatch, way: str, mode: str
) -> None:
    allow_loopback(monkeypatch, {"images.example.com": [["127.0.0.1"]]})
    await ask(server, way, addressed(way, images.address("/cat.png")), allow_image_urls=True, mode=mode)
    body = server.requests[-1].body
    assert body.get("messages", [WIRE]) == [WIRE]
    assert body.get("images", [TEXT]) == [TEXT]
    assert images.paths == ["/cat.png"]


@four_ways
async def test_where_images_may_stand(server: SimulatedOllama, way: str) -> None:
    """Two in a message, in a tool's result, and among Anthropic's results."""
    tool: Any
    image: Any = from_openai(URL) if way.startswith("langchain") else ImageBlock(image=PNG)
    if way.startswith("langchain"):
        seen = [{"type": "text", "text": "seen"}, image]
        tool = ToolMessage(seen, tool_call_id="c", name="look")
        result = HumanMessage([{"type": "tool_result", "tool_use_id": "c", "content": seen}])
        messages = [tool, *langchain_message(image, image), result]
    else:
        extra = {"tool_call_id": "c", "name": "look"}
        tool = ChatMessage(role="tool", blocks=[TextBlock(text="seen"), image], additional_kwargs=extra)
        messages = [tool, *llamaindex_message(image, image), tool]
    before = copy.deepcopy(messages)
    (raw,) = await ask(server, way, messages)
    result_of_tool = {"role": "tool", "content": "seen", "images": [TEXT], "tool_call_id": "c"}
    told, several, again = json.loads(raw)["messages"]
    assert told == {**result_of_tool, "tool_name": "look"}
    assert several == {"role": "user", "content": "What is it?\n[img]\n[img]", "images": [TEXT, TEXT]}
    assert again.items() >= result_of_tool.items()
    assert messages == before


async def test_a_completion_model_takes_the_same_forms(server: SimulatedOllama) -> None:
    with OllamaDifyLLM(model="llava", base_url=server.base_url) as model:
        for form in (PNG, TEXT, URL, FILE, Image.from_bytes(PNG)):
            model.invoke("What is it?", images=[form])
            assert server.requests[-1].body["images"] == [TEXT]
        with pytest.raises(UnsupportedContentError, match=r"images\[0\].*switched off"):
            model.invoke("What is it?", images=[FILE], allow_image_paths=False)
        with pytest.raises(UnsupportedContentError, match=r"images\[1\].*never opened"):
            model.invoke("What is it?", images=[PNG, str(FILE)])


async def test_converting_is_the_same_in_both(server: SimulatedOllama) -> None:
    tiff = (IMAGES / "tiff.tiff").read_bytes()
    values = {"convert_images": True, "max_image_edge": 16}
    (one,) = await ask(
        server, "langchain invoke", langchain_message({"type": "image", "image": tiff}), **values
    )
    (other,) = await ask(server, "llamaindex chat", llamaindex_message(ImageBlock(image=tiff)), **values)
    assert one == other
    (sent,) = json.loads(one)["messages"][0]["images"]
    image = Image.from_base64(sent)
    assert image.media_type == "image/png"
    assert max(image.width, image.height) == 16


@pytest.mark.parametrize("way", [way for way in CHAT if way.split()[1].startswith("a")])
async def test_converting_leaves_the_event_loop_alone(
    server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    threads = []
    opened = PIL.Image.open

    def watched(*args: Any, **values: Any) -> Any:
        threads.append(threading.current_thread())
        return opened(*args, **values)

    monkeypatch.setattr("PIL.Image.open", watched)
    tiff = (IMAGES / "tiff.tiff").read_bytes()
    langchain = langchain_message({"type": "image", "image": tiff})
    messages = langchain if way.startswith("langchain") else llamaindex_message(ImageBlock(image=tiff))
    await ask(server, way, messages, convert_images=True)
    assert threads
    assert threading.main_thread() not in threads


# What must not get in.

TEXTS = {
    "absolute path": "/etc/passwd",
    "home": "~/.ssh/id_rsa",
    "relative path": "./canary.png",
    "name": "canary.png",
    "windows path": "C:\\canary.png",
    "network share": "\\\\host\\share\\canary.png",
    "space before": " /etc/canary.png",
    "file address": "file:///etc/canary.png",
    "ftp": "ftp://example.com/canary.png",
    "data url without base64": "data:image/png,abc",
    "data url with a path": "data:image/png;base64,/etc/canary.png",
    "data url, empty": "data:image/png;base64,",
    "no base64": "%%%",
    "a sentence": "an image of a cat",
    "svg": "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(),
    "html": "data:image/png;base64," + base64.b64encode(b"<html></html>").decode(),
    "empty": "",
}
BAD_FILES = [
    "tiff.tiff",
    "avif.avif",
    "ico.ico",
    "svg.svg",
    "pdf.pdf",
    "heic_header.heic",
    "webp_animated.webp",
    "text.txt",
    "html.html",
    "wav.wav",
    "mp3_like.mp3",
    "mp4_like.mp4",
    "psd_like.icns",
    "jp2.jp2",
    "png_signature_only.png",
    "png_truncated_header.png",
    "png_0x0.png",
    "png_40000x40000_header.png",
    "zeros.bin",
]


def bad(kind: str, name: str, frame: str) -> list[Any]:
    """A message with one bad image, in the words of a framework."""
    if kind == "text":
        return addressed(frame, TEXTS[name])
    data = (IMAGES / name).read_bytes()
    if frame.startswith("langchain"):
        encoded = base64.b64encode(data).decode()
        return langchain_message({"type": "image", "base64": encoded, "mime_type": "image/png"})
    return llamaindex_message(ImageBlock.model_construct(image=data, path=None, url=None))


BAD = [("text", name) for name in TEXTS] + [("file", name) for name in BAD_FILES]


@both
@pytest.mark.parametrize(("kind", "name"), BAD, ids=[name for _, name in BAD])
@pytest.mark.parametrize("allowed", [False, True], ids=["default", "addresses allowed"])
async def test_bad_ones_are_refused_unopened(
    server: SimulatedOllama,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    name: str,
    frame: str,
    allowed: bool,
) -> None:
    (tmp_path / "canary.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    OPENED.clear()
    with pytest.raises(UnsupportedContentError, match=r"messages\[0\]\.(content|blocks)\[1\]"):
        await ask(server, frame, bad(kind, name, frame), allow_image_urls=allowed)
    assert OPENED == []
    assert server.requests == []


@both
@pytest.mark.parametrize("given", [str, os.fspath, lambda path: path.as_uri()], ids=["str", "fspath", "uri"])
async def test_a_path_as_text_is_not_a_path(
    server: SimulatedOllama, tmp_path: Path, frame: str, given: Callable[[Path], str]
) -> None:
    canary = tmp_path / "canary.png"
    canary.write_bytes(PNG)
    OPENED.clear()
    text = given(canary)
    with pytest.raises(UnsupportedContentError):
        await ask(server, frame, addressed(frame, text), allow_image_urls=True)
    assert OPENED == []


@both
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
async def test_a_directory_limits_path_objects(
    server: SimulatedOllama, tmp_path: Path, frame: str, inside: bool
) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    canary = (allowed if inside else tmp_path) / "canary.png"
    canary.write_bytes(PNG)
    link = allowed / "link.png"
    link.symlink_to(canary)
    OPENED.clear()
    for path in (canary, link, allowed / ".." / canary.relative_to(tmp_path)):
        messages = (
            langchain_message({"type": "image", "path": path})
            if frame.startswith("langchain")
            else llamaindex_message(ImageBlock(path=path))
        )
        if inside:
            (raw,) = await ask(server, frame, messages, allow_image_paths=allowed)
            assert json.loads(raw)["messages"] == [WIRE]
        else:
            with pytest.raises(UnsupportedContentError, match="outside the allowed directory"):
                await ask(server, frame, messages, allow_image_paths=allowed)
    assert bool(OPENED) is inside


# Addresses.

DEFAULT_REFUSED = ["http://{}/cat.png", "HTTP://{}/cat.png", " http://{}/cat.png", "https://{}/cat.png"]


@every_way
async def test_addresses_are_not_fetched_by_themselves(
    server: SimulatedOllama, images: ImageServer, way: str
) -> None:
    for form in DEFAULT_REFUSED:
        address = form.format(f"127.0.0.1:{images.port}")
        with pytest.raises(UnsupportedContentError):
            await ask(server, way, addressed(way, address))
    assert images.asked == []
    assert server.requests == []


def addressed(way: str, address: str) -> list[Any]:
    if way.startswith("langchain"):
        return langchain_message(from_openai(address))
    return llamaindex_message(ImageBlock.model_construct(image=None, path=None, url=address))


# Names, and what they lead to.
PRIVATE_NAMES = {
    "loopback": [["127.0.0.1"]],
    "loopback six": [["::1"]],
    "mapped": [["::ffff:127.0.0.1"]],
    "link local": [["169.254.169.254"]],
    "ten": [["10.1.2.3"]],
    "unique local": [["fd00::1"]],
    "one of two": [["93.184.216.34", "127.0.0.1"]],
    "the second": [["2606:4700::1", "10.0.0.1"]],
    "any": [["0.0.0.0"]],
    "nothing": [[]],
}


@four_ways
@pytest.mark.parametrize("mode", ["chat", "completion"])
@pytest.mark.parametrize(
    "address",
    [
        "http://2130706433:{port}/cat.png",
        "http://[::ffff:127.0.0.1]:{port}/cat.png",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://10.0.0.1:{port}/cat.png",
        "http://a.localhost:{port}/cat.png",
        "http://user:secret@127.0.0.1:{port}/cat.png",
    ],
)
async def test_private_addresses_are_never_fetched(
    server: SimulatedOllama, images: ImageServer, address: str, mode: str, way: str
) -> None:
    """Each kind once; all of them: tests/media/test_image_urls.py."""
    messages = addressed(way, address.format(port=images.port))
    with pytest.raises(UnsupportedContentError, match=r"messages\[0\]") as caught:
        await ask(server, way, messages, allow_image_urls=True, mode=mode)
    assert "secret" not in str(caught.value)
    assert images.asked == []
    assert server.requests == []


@every_way
@pytest.mark.parametrize("name", PRIVATE_NAMES)
async def test_names_of_private_addresses_are_never_fetched(
    server: SimulatedOllama, images: ImageServer, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    names = Names({"images.example.com": [list(found) for found in PRIVATE_NAMES[name]]})
    monkeypatch.setattr("socket.getaddrinfo", names)
    with pytest.raises(UnsupportedContentError):
        await ask(server, way, addressed(way, images.address("/cat.png")), allow_image_urls=True)
    assert names.asked == ["images.example.com"]
    assert images.asked == []
    assert not [request for request in server.requests if request.path == "/api/chat"]


def allow_loopback(
    monkeypatch: pytest.MonkeyPatch, table: dict[str, list[list[str]]], delay_s: float = 0.0
) -> Names:
    """Names as in the table, and 127.0.0.1 taken for a public address once it was looked up."""
    names = Names(table, delay_s)
    monkeypatch.setattr("socket.getaddrinfo", names)

    def check(ip: str, *, where: str = "image") -> None:
        if ip != "127.0.0.1":
            check_public_address(ip, where=where)

    monkeypatch.setattr("ollama_dify.transport.image_download.check_public_address", check)
    return names


REDIRECTS = {
    "to a private address": ("http://10.0.0.1/", "not on the public internet"),
    "to loopback": ("http://127.0.0.1:{port}/cat.png", "not on the public internet"),
    "to link local": ("http://169.254.169.254/", "not on the public internet"),
    "to a decimal address": ("http://2130706433:{port}/cat.png", "valid host"),
    "to a private name": ("http://inside.example.com:{port}/cat.png", "not on the public internet"),
    "to a local name": ("http://localhost:{port}/cat.png", "local network"),
    "to a file": ("file:///etc/passwd", "not an http or https address"),
    "to gopher": ("gopher://images.example.com/", "not an http or https address"),
    "with credentials": ("http://a:b@images.example.com:{port}/cat.png", "credentials"),
    "without end": ("/loop", "redirects more than 3 times"),
}


@four_ways
@pytest.mark.parametrize("name", REDIRECTS)
async def test_each_redirect_is_checked_anew(
    server: SimulatedOllama, images: ImageServer, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    target, why = REDIRECTS[name]
    allow_loopback(monkeypatch, {"images.example.com": [["127.0.0.1"]], "inside.example.com": [["10.0.0.7"]]})
    address = images.address("/to?" + target.format(port=images.port).replace("&", "%26"))
    with pytest.raises(UnsupportedContentError, match=why):
        await ask(server, way, addressed(way, address), allow_image_urls=True)
    assert "/cat.png" not in images.paths
    assert len(images.paths) <= 4


@four_ways
async def test_what_a_fetch_sends(
    server: SimulatedOllama, images: ImageServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A good redirect is followed; no cookie, no credential, no proxy; one look-up of the name per step."""
    names = allow_loopback(monkeypatch, {"images.example.com": [["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]]})
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (raw,) = await ask(
        server,
        way,
        addressed(way, images.address("/to?/cat.png")),
        allow_image_urls=True,
        api_key="secret-key",
        headers={"X-Secret": "secret-header"},
    )
    assert json.loads(raw)["messages"] == [WIRE]
    assert images.paths == ["/to?/cat.png", "/cat.png"]
    assert names.asked == ["images.example.com"] * 2
    for _, headers in images.asked:
        assert headers["host"] == f"images.example.com:{images.port}"
        assert headers["accept-encoding"] == "identity"
        assert not {"cookie", "authorization", "x-secret", "referer"} & set(headers)
        assert "secret" not in json.dumps(headers)


@four_ways
@pytest.mark.parametrize(("host", "allowed"), [("127.0.0.1", True), ("images.example.com", False)])
async def test_the_certificate_names_the_host_and_not_the_address(
    server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch, host: str, allowed: bool, way: str
) -> None:
    """The connection goes to a checked IP address, which an attacker's certificate may name."""
    allow_loopback(monkeypatch, {"images.example.com": [["127.0.0.1"]]})
    monkeypatch.setattr("ollama_dify.media.urls.check_public_address", lambda ip, **_: None)
    trusting = ssl.create_default_context(cafile=TLS / "ca.pem")
    monkeypatch.setattr("ollama_dify.transport.image_download.system_tls", lambda: trusting)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(TLS / "server.pem")
    with ImageServer(served_images, tls=served) as images:
        address = f"https://{host}:{images.port}/cat.png?sig={SIGNATURE}"
        if allowed:
            assert await ask(server, way, addressed(way, address), allow_image_urls=True)
        else:
            with pytest.raises(UnsupportedContentError, match="certificate") as caught:
                await ask(server, way, addressed(way, address), allow_image_urls=True)
            assert SIGNATURE not in "".join(traceback.format_exception(caught.value))
        assert len(images.paths) == allowed


SIGNATURE = "4c0ffee"
HOSTILE = {
    "/text.png": "PNG",
    "/missing.png": "answers 404",
    "/big.png": "is over 20971520 bytes",
}


@four_ways
@pytest.mark.parametrize("path", HOSTILE)
async def test_what_is_no_image_is_refused(
    server: SimulatedOllama, images: ImageServer, monkeypatch: pytest.MonkeyPatch, path: str, way: str
) -> None:
    allow_loopback(monkeypatch, {"images.example.com": [["127.0.0.1"]]})
    with pytest.raises(UnsupportedContentError, match=HOSTILE[path]) as caught:
        await ask(
            server, way, addressed(way, images.address(f"{path}?sig={SIGNATURE}")), allow_image_urls=True
        )
    assert SIGNATURE not in "".join(traceback.format_exception(caught.value))
    assert not [request for request in server.requests if request.path == "/api/chat"]


@four_ways
@pytest.mark.parametrize(
    ("path", "delay_s"),
    [("/slow.png", 0.0), ("/to?/slow.png", 0.1), ("/cat.png", 1.0)],
    ids=["a slow body", "a slow body after a redirect", "a slow name"],
)
async def test_all_steps_share_one_time(
    server: SimulatedOllama,
    images: ImageServer,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    delay_s: float,
    way: str,
) -> None:
    monkeypatch.setattr("ollama_dify.transport.image_download.FETCH_S", 0.3)
    allow_loopback(monkeypatch, {"images.example.com": [["127.0.0.1"]]}, delay_s)
    with pytest.raises(UnsupportedContentError, match="fetched: it takes too long"):
        await ask(server, way, addressed(way, images.address(path)), allow_image_urls=True)


@every_way
@pytest.mark.parametrize(
    "values", [{"vision_support": False}, {"model": "llama3.2"}], ids=["switched off", "a blind model"]
)
async def test_without_vision_nothing_is_fetched(
    server: SimulatedOllama,
    images: ImageServer,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    way: str,
) -> None:
    names = allow_loopback(monkeypatch, {"images.example.com": [["127.0.0.1"]]})
    with pytest.raises(ollama_dify.CapabilityError):
        await ask(server, way, addressed(way, images.address("/cat.png")), allow_image_urls=True, **values)
    assert names.asked == images.asked == []
    assert "/api/chat" not in [request.path for request in server.requests]
    if "model" not in values:
        assert server.requests == []


@every_way
async def test_too_many_images_are_refused_before_any_is_fetched(
    server: SimulatedOllama, images: ImageServer, way: str
) -> None:
    messages = addressed(way, "http://images.example.com/cat.png")
    if way.startswith("langchain"):
        messages[0].content = messages[0].content[1:] * 17
    else:
        messages[0].blocks = messages[0].blocks[1:] * 17
    with pytest.raises(UnsupportedContentError, match="17 images; at most 16"):
        await ask(server, way, messages, allow_image_urls=True)
    assert server.requests == []


async def test_the_core_asks_for_permission_too(server: SimulatedOllama, images: ImageServer) -> None:
    address = ollama_dify.ImageUrl("http://93.184.216.34/cat.png")
    settings = ollama_dify.ChatSettings(model="llava", base_url=server.base_url)
    with ollama_dify.OllamaClient(settings) as client:
        with pytest.raises(UnsupportedContentError, match="not fetched unless that is allowed"):
            client.chat([ollama_dify.user(address)])
        with pytest.raises(UnsupportedContentError, match="not fetched unless that is allowed"):
            client.generate(ollama_dify.Prompt("a", images=(address,)))
    assert server.requests == []


# What Ollama takes in no form.
