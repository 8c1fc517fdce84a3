"""What the page says, in every language, beside the labels of Dify's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..language import LANGUAGES, N_, _
from ..language import language as in_language
from ..settings.dify_form import FORM_FIELDS

__all__ = ["page_data"]

TEXTS: Mapping[str, str] = {
    "title": N_("Dify's form for Ollama"),
    "lead": N_("Fill in the form; beside it stand the same settings as code."),
    "language": N_("Language"),
    "form": N_("The form"),
    "code": N_("The same settings as code"),
    "shell": N_("Shell"),
    "credentials": N_("Dify credentials"),
    "copy": N_("Copy"),
    "copied": N_("Copied"),
    "read": N_("Read from the server"),
    "save": N_("Save"),
    "saved": N_("Saved means here: the model answered one ping, as in Dify. Nothing is stored."),
    "busy": N_("The server is being asked …"),
    "whole": N_("A whole number is needed."),
    "key": N_("The code reads the key from the environment variable OLLAMA_API_KEY."),
    "try": N_("Try it"),
    "prompt": N_("Message"),
    "text": N_("Text to embed"),
    "files": N_("Images or sounds: drop them here, or choose files"),
    "send": N_("Send"),
    "stop": N_("Stop"),
    "clear": N_("Remove the files"),
    "tokens": N_(
        "{input} tokens read, {output} written; load {load} s, reading {read} s, writing {write} s "
        "({rate} tokens/s)"
    ),
    "vector": N_("A vector of {dimensions} numbers; {input} tokens, {seconds} s"),
    "ended": N_("(ended)"),
    "gone": N_("The page's own program does not answer. Is `ollama-dify form --web` still running?"),
    "static": N_(
        "This page writes code only. To save and to try the model, run on your machine: "
        '`pip install "ollama-dify[web]"`, then `ollama-dify form --web`, and open the address it prints.'
    ),
}


def page_data() -> dict[str, Any]:
    """The fields of the form with their labels, and the page's texts by language."""
    texts = {}
    for name in LANGUAGES:
        with in_language(name):
            texts[name] = {key: _(text) for key, text in TEXTS.items()}
    return {"fields": [asdict(field) for field in FORM_FIELDS], "texts": texts}
