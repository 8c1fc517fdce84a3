"""A file given as bytes, base64 text or a path object: read piece by piece and checked.

Base64 text, str or ASCII bytes, is never decoded or copied as a whole.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UnsupportedContentError

__all__ = ["DEFAULT_LIMITS", "ImageLimits", "Source", "check_base64", "read_file", "refusal"]

ACCEPTED_FORMATS = "PNG, JPEG, static WebP, GIF or BMP"
_PIECE_BYTES = 49_152
_PIECE_CHARS = 65_536
# Message contents differ between the frameworks, so the hint names both.
_PATH_HINT = (
    "To send a file: `from ollama_dify import Image`, then Image.from_path(path) as a part of user(…), as "
    '{"type": "image", "image": …} in LangChain; ImageBlock(path=…) in LlamaIndex. Sounds: Audio, AudioBlock.'
)
SMALLER = "Send a smaller image; vision models scale it down anyway."
# No path and no data: URL header is longer.
_HEAD_CHARS = 4096
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_MARK_INVALID = bytes(chr(code) not in _ALPHABET for code in range(256))
_NOT_IN_BASE64 = {
    "-": "belongs to the base64url alphabet",
    "_": "belongs to the base64url alphabet",
    "%": "is percent-encoding",
    "=": "is padding in the middle",
}
_ADDRESS = re.compile(r"\s{0,80}([A-Za-z][A-Za-z0-9+.-]{1,20}):/")
_PATH = re.compile(
    r"\s*(~|\.\.?[/\\]|[A-Za-z]:[/\\]|\\\\|/(?!9j/|/|\+)|[^,;=]{1,4096}\.[A-Za-z0-9]{2,5}\s*\Z)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Limits of one request.

    max_bytes: size of one file in bytes.
    max_pixels: width × height that an image's header declares.
    max_count: images and audio files per request.
    """

    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    max_count: int = 16


DEFAULT_LIMITS = ImageLimits()


def refusal(where: str, problem: str, hint: str = f"Send {ACCEPTED_FORMATS}.") -> UnsupportedContentError:
    """The error for a file; `where` names it, the hint says what would be accepted."""
    return UnsupportedContentError(f"{where}: {problem}.", hint=hint)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Random access to a file's bytes.

    payload: the bytes, or strict base64 text as given.
    start: where the base64 text begins inside `payload` (after the header of a data: URL).
    encoded: whether the payload is base64 text, as str or as ASCII bytes.
    """

    payload: bytes | str = field(repr=False)
    start: int
    encoded: bool

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        length = len(self.payload) - self.start
        return length // 4 * 3 - _count_padding(self.payload, self.start) if self.encoded else length

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer at the end of the file. Only these are decoded."""
        payload, start = self.payload, self.start
        if not self.encoded and isinstance(payload, bytes):
            return payload[offset : offset + length]
        first, skip = divmod(offset, 3)
        last = -(-(offset + length) // 3)
        return binascii.a2b_base64(payload[start + first * 4 : start + last * 4])[skip : skip + length]

    def contains_from_end(self, pattern: bytes, offset: int) -> bool:
        """Whether `pattern` occurs at or after `offset`; looks at the end first."""
        end = self.size
        while end > offset:
            begin = max(offset, end - _PIECE_BYTES)
            if pattern in self.read(begin, end - begin + len(pattern) - 1):
                return True
            end = begin
        return False


def _count_padding(text: bytes | str, start: int) -> int:
    """Number of "=" at the end of the base64 text that starts at `start`; 2 at most."""
    tail = text[max(start, len(text) - 2) :]
    return len(tail) - len(tail.rstrip("=") if isinstance(tail, str) else tail.rstrip(b"="))


def read_file(
    path: Path | str,
    *,
    allowed: bool | Path = True,
    limits: ImageLimits,
    where: str = "image",
) -> bytes:
    """The bytes of a regular file of at most `limits.max_bytes`.

    allowed: False refuses every path; a directory refuses paths outside it, after resolving symbolic links.
    Raises UnsupportedContentError, chained to the OSError if there is one.
    """
    if allowed is False:
        why = "reading images from files is switched off (allow_image_paths=False)"
        raise refusal(where, why, "Send the image's bytes or base64.")
    # O_NONBLOCK: opening a pipe does not wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        real = Path(path).resolve(strict=True)
        if isinstance(allowed, Path) and not real.is_relative_to(allowed.resolve()):
            why = f"{str(path)!r} lies outside the allowed directory {str(allowed)!r}"
            raise refusal(
                where, why, "Move the file there, or allow another directory (allow_image_paths=…)."
            )
        with open(real, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise refusal(where, f"{str(real)!r} is not a regular file", "Name an image's file.")
            check_size(status.st_size, limits, where, what="image")
            return file.read(limits.max_bytes + 1)
    except UnsupportedContentError:
        raise
    except (OSError, ValueError, RuntimeError) as exc:
        why = f"{str(path)!r} cannot be read: {getattr(exc, 'strerror', None) or exc}"
        raise refusal(where, why, "Check the path and its permissions.") from exc


def text_start(text: str | bytes, where: str) -> int:
    """Where the base64 begins; a path or an address is refused."""
    head = text[: _HEAD_CHARS + 1]
    if not isinstance(head, str):
        head = head.decode("utf-8", "replace")
    if head[:5].lower() == "data:":
        return data_url_start(head, where)
    if (match := _ADDRESS.match(head)) is not None:
        scheme = match[1].lower()
        if scheme not in ("http", "https"):
            raise refusal(where, f"this is a {scheme}: address, which is not opened", _PATH_HINT)
        hint = "Send the image's bytes or base64, or opt in with allow_image_urls=True."
        why = f"this is an {scheme} address, and addresses are not fetched by themselves"
        raise refusal(where, why, hint)
    if len(head) <= _HEAD_CHARS and _PATH.match(head) is not None:
        why = f"{head[:80]!r} looks like a file path, and paths in messages are never opened"
        raise refusal(where, why, _PATH_HINT)
    return 0


def data_url_start(head: str, where: str) -> int:
    """Where the base64 of a `data:` URL begins. head: the beginning of the URL."""
    comma = head.find(",", 0, 1024)
    label = head[: max(comma, 0)].lower()
    if not label.startswith("data:") or not label.endswith(";base64"):
        raise refusal(where, "this data: URL holds no base64", "Write data:image/png;base64,… .")
    return comma + 1


def check_size(size: int, limits: ImageLimits, where: str, *, what: str) -> None:
    """Refuse a file of more than `limits.max_bytes`; what: "image" or "audio"."""
    if size > limits.max_bytes:
        why = f"this is {size / (1 << 20):.2f} MiB; at most {limits.max_bytes / (1 << 20):g} MiB are taken"
        shorter = "Send a shorter or compressed sound."
        raise refusal(where, why, SMALLER if what == "image" else shorter)


def check_base64(text: str | bytes, start: int, limits: ImageLimits, where: str, *, what: str) -> None:
    """Validate base64 text piece by piece, without decoding it, and its size."""
    padding = _count_padding(text, start)
    check_size((len(text) - start) // 4 * 3 - padding, limits, where, what=what)
    end = len(text) - padding
    for begin in range(start, end, _PIECE_CHARS):
        piece = text[begin : min(begin + _PIECE_CHARS, end)]
        # "replace" turns other characters into "?", which is not base64 either
        codes = piece.encode("ascii", "replace") if isinstance(piece, str) else piece
        position = codes.translate(_MARK_INVALID).find(1)
        if position >= 0:
            # One character has at most four bytes in UTF-8.
            found = piece[position : position + 4]
            character = (found if isinstance(found, str) else found.decode("utf-8", "replace"))[0]
            other = "is white space" if character.isspace() else "is not in the alphabet"
            what_it_is = _NOT_IN_BASE64.get(character, other)
            raise _not_base64(where, f"{character!r} at position {begin + position - start} {what_it_is}")
    length = end - start
    if length % 4 == 1:
        raise _not_base64(where, f"{length} characters cannot be base64; the text is cut")
    if padding != -length % 4:
        raise _not_base64(where, 'its padding ("=" at the end) is wrong or missing')
    if not length:
        raise refusal(where, "this is empty")
    spare_bits = {0: 0, 2: 15, 3: 3}[length % 4]
    last = text[end - 1]
    if _ALPHABET.index(last if isinstance(last, str) else chr(last)) & spare_bits:
        raise _not_base64(where, "its last character holds bits that belong to no byte; the text is cut")


def _not_base64(where: str, why: str) -> UnsupportedContentError:
    standard = f"standard base64 (A–Z a–z 0–9 + /, padded, on one line) or the bytes of {ACCEPTED_FORMATS}"
    return refusal(where, f"this is not strict base64: {why}", f"Send {standard}. {_PATH_HINT}")
