"""`chat`: one answer, or a conversation, streamed."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable

from ..client.blocking import OllamaClient
from ..errors import OllamaError
from ..language import _
from ..media.image import Audio, Image
from ..settings import ChatSettings
from ..terminal import Terminal
from ..wire.messages import Content, Message, assistant, system, user

__all__ = ["chat"]


def chat(args: Namespace, terminal: Terminal, read: Callable[[str], str] = input) -> int:
    """Answer the prompt; without one, hold a conversation until Ctrl-D or /bye."""
    settings = ChatSettings(model=args.model, base_url=args.base_url, context_size=args.context_size)
    media: list[Content] = [Image.from_path(path) for path in args.image]
    media += [Audio.from_path(path) for path in args.audio]
    messages: list[Message] = [] if args.system is None else [system(args.system)]
    prompt = args.prompt
    if prompt is None and not sys.stdin.isatty() and read is input:
        prompt = sys.stdin.read()
    with OllamaClient(settings) as client:
        if prompt is not None:
            return 0 if _answer(client, [*messages, user(prompt, *media)], terminal) is not None else 1
        terminal.say(terminal.paint(_("Ctrl-C ends an answer, Ctrl-D or /bye the conversation."), "dim"))
        while True:
            try:
                text = read(">>> ").strip()
            except KeyboardInterrupt:
                text = ""
                terminal.say()
            except EOFError:
                terminal.say()
                return 0
            if text == "/bye":
                return 0
            asked = user(text, *media)
            try:
                answer = _answer(client, [*messages, asked], terminal) if text else None
            except OllamaError as error:
                terminal.complain(str(error))
                continue
            if answer:
                messages += [asked, assistant(answer)]
                media = []


def _answer(client: OllamaClient, messages: list[Message], terminal: Terminal) -> str | None:
    """Write an answer while it comes; its text, as far as it came. None where Ctrl-C came first."""
    thinking = False
    with client.chat_stream(messages) as stream:
        try:
            for chunk in stream:
                if chunk.thinking:
                    thinking = True
                    terminal.say(terminal.paint(chunk.thinking, "dim"), end="")
                if chunk.text:
                    terminal.say("\n\n" if thinking else "", end="")
                    thinking = False
                    terminal.say(chunk.text, end="")
        except KeyboardInterrupt:
            terminal.say(" " + terminal.paint(_("(ended)"), "dim"), end="")
        terminal.say()
        return stream.result.text or None
