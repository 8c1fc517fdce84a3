"""Recorded exchanges of real servers: loading, the models they were made with, and what to script."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama_dify.testing import Reply, SimulatedModel

DATA = Path(__file__).parent.parent / "data" / "captures"
# The OpenAI-compatible routes, the older embedding route, and what only manages models.
UNKNOWN = ("/v1", "/api/embeddings", "/api/blobs", "/api/copy", "/api/create", "/api/delete", "/api/status")
VERSIONS = ("0.24.0", "0.32.15", "0.33.0-rc2")
BETA = re.compile(r'\[|\n+|"(?=\])| ?"(?=b)|b|e|t|a|","|",| ')
OWN_WEIGHTS = ("all-minilm", "tiny-random", "tiny-native", "tiny-random-native")
TEMPLATES: dict[str, Any] = {"all-minilm": "prompt", "tiny-fim": "fim", "tiny-plain": "plain"}
STOPS = {"seed": 1, "stop": ["<|im_start|>", "<|im_end|>"], "temperature": 0}


@dataclass(frozen=True)
class Recording:
    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    status: int
    response_headers: list[list[str]]
    response: str

    @property
    def asked(self) -> dict[str, Any]:
        try:
            asked = json.loads(self.body or "null")
        except json.JSONDecodeError:
            return {}
        return asked if isinstance(asked, dict) else {}


def recordings(version: str) -> list[Recording]:
    """All exchanges over the routes that are simulated."""
    raw = gzip.decompress((DATA / f"{version}.jsonl.gz").read_bytes()).decode()
    read = [Recording(**json.loads(line)) for line in raw.split("\n") if line]
    return [one for one in read if not one.path.startswith(UNKNOWN)]


def models(recorded: list[Recording]) -> list[SimulatedModel]:
    """The models of the recorded server, out of its own /api/tags and /api/show."""
    listed = json.loads(next(one for one in recorded if one.name == "tags").response)["models"]
    shows = {
        one.asked["model"]: json.loads(one.response)
        for one in recorded
        if one.path == "/api/show" and one.status == 200 and not one.asked.get("verbose")
    }
    return [_model(entry, shows.get(entry["name"].removesuffix(":latest"))) for entry in listed]


def _model(entry: dict[str, Any], show: dict[str, Any] | None) -> SimulatedModel:
    name = entry["name"].removesuffix(":latest")
    details = entry["details"]
    embeds = name == "all-minilm"
    capabilities = _capabilities(name, entry, show)
    info = None
    if show is not None:
        info = {k: v for k, v in show["model_info"].items() if embeds or "tokenizer" not in k}
    parameters: dict[str, Any] = {} if embeds else {"num_ctx": 2048, **STOPS} if name == "tiny-sys" else STOPS
    return SimulatedModel(
        name,
        capabilities,
        template=TEMPLATES.get(name, "native" if "native" in name else "chatml"),
        context_length=512 if embeds else 32768,
        dimensions=384 if embeds else 128,
        family=details["family"],
        families=details["families"],
        parameter_size=details["parameter_size"],
        quantization=details["quantization_level"],
        size=entry["size"],
        digest=entry["digest"],
        modified_at=entry["modified_at"],
        parent=details["parent_model"],
        # The recorded models share one file of weights, some of them excepted.
        weights=name if name in OWN_WEIGHTS else "tiny",
        system="You are a pirate." if name == "tiny-sys" else None,
        parameters=parameters,
        counting="words" if embeds else "bpe",
        framed=embeds,
        listed=entry.get("capabilities"),
        model_info=info,
    )


def _capabilities(name: str, entry: dict[str, Any], show: dict[str, Any] | None) -> list[Any]:
    if show is not None:
        return list(show["capabilities"])
    if name == "tiny-fim":
        return ["completion", "insert"]
    native = ["tools", "thinking", "completion"]
    return native if "native" in name else ["completion", "tools", "thinking"]


# Whole answers of exchanges that were cut short: the simulator has to do the cutting itself.
TO_FORTY = ("num_predict-limit-nostream", "num_predict-limit-stream", "native-num_predict")
GREETED = ("option-float-for-int", "logprobs-top3-nostream", "logprobs-top3-stream", "native-logprobs-stream")
OVERLONG = ("overlong-shift-false", "overlong-truncate-true-shift-false")
WHOLE = {
    **dict.fromkeys(TO_FORTY, Reply(" ".join(map(str, range(1, 41))))),
    **dict.fromkeys(GREETED, Reply("Hello! How can I help you today?")),
    **dict.fromkeys(OVERLONG, Reply("The image is red.")),
    "native-prefill": Reply(" France is Paris."),
    "stop-option": Reply(" ".join(map(str, range(1, 11)))),
    "num_predict-in-think": Reply("Paris.", thinking="The user asks for the capital of France.\n"),
    "generate-template-override": Reply("Your name is Heidiuser and more"),
    "tools-num_predict-cuts-call": Reply(
        tool_calls=[{"name": "get_weather", "arguments": {"city": "Paris"}}]
    ),
}


def script(one: Recording) -> Reply | None:
    """What the neural model said, so that everything around it can be compared; None for no script."""
    if one.name in WHOLE:
        return WHOLE[one.name]
    if one.status != 200 and "native-mid-stream" not in one.name:
        return None
    if one.path not in ("/api/chat", "/api/generate"):
        return None
    chunks = [json.loads(line) for line in one.response.split("\n") if line]
    errors = [chunk["error"] for chunk in chunks if "error" in chunk]
    chunks = [chunk for chunk in chunks if "error" not in chunk]
    if one.status == 500:
        return Reply("know", error_at_end=errors[0])
    parts = [chunk.get("message") or {"content": chunk.get("response", ""), **chunk} for chunk in chunks]
    text = "".join(part.get("content", "") for part in parts)
    thinking = "".join(part.get("thinking", "") for part in parts)
    calls = [call["function"] for part in parts for call in part.get("tool_calls") or ()]
    done = bool(chunks) and chunks[-1]["done"]
    last = chunks[-1] if chunks else {}
    if not text and not thinking and not calls and last.get("done_reason") in ("load", "unload"):
        return None
    pieces = None
    if "beta" in text:
        pieces = BETA.findall(text + '","beta' * 200)
    elif "random" in one.asked["model"] and len(chunks) > 1:
        pieces = [part["content"] for part in parts]
    return Reply(
        text,
        thinking=thinking or None,
        tool_calls=calls,
        pieces=pieces,
        done=done,
        error_at_end=errors[0] if errors else None,
        done_reason=None,
    )


_NEUTRAL = (
    (re.compile(r'"(created_at|modified_at|expires_at)":"[^"]*"'), r'"\1":"T"'),
    (re.compile(r'"(total|load|prompt_eval|eval)_duration":\d+'), r'"\1_duration":0'),
    (re.compile(r'"id":"call_[a-z0-9]{8}"'), '"id":"call_8"'),
    (re.compile(r'"id":"[A-Za-z0-9]{32}"'), '"id":"32"'),
    (re.compile(r'"digest":"[0-9a-f]{64}"'), '"digest":"D"'),
    (re.compile(r"(?:/usr/share/ollama/\.ollama/models\w*/blobs/)?sha256[-:][0-9a-f]{64}"), "sha256"),
    (re.compile(r'"logprob":-?[\d.e-]+'), '"logprob":0'),
)


def neutral(text: str) -> str:
    """The body without times, durations, ids, digests and log probabilities."""
    for pattern, plain in _NEUTRAL:
        text = pattern.sub(plain, text)
    return text
