"""Do the tests guard what they should? Each of these changes must make a test fail: `make mutants`.

The sources are copied to a temporary folder, one line is changed there, and the tests named beside it run
against the copy. A change that no test notices has survived; a text that is not found once means that
this list is out of date.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SECONDS = 120


class Mutant(NamedTuple):
    """name: what is lost. path: below shared/ollama_dify. tests: arguments of pytest."""

    name: str
    path: str
    old: str
    new: str
    tests: str


HTTP1 = "transport/http1.py"
CACHE = "tokens/cache.py"
CREDENTIALS = "settings/credentials.py"

MUTANTS = (
    Mutant(
        "head over 256 KiB",
        HTTP1,
        "HEAD_LIMIT = 256 * 1024",
        "HEAD_LIMIT = 1 << 30",
        "tests/transport/test_http1.py",
    ),
    Mutant(
        "error body over 64 KiB",
        "transport/http_stream.py",
        "ERROR_BODY_LIMIT = 64 * 1024",
        "ERROR_BODY_LIMIT = 1 << 30",
        "tests/faults/test_transport.py",
    ),
    Mutant(
        "line over 16 MiB",
        "wire/streaming.py",
        "MAX_LINE = 16 * 1024 * 1024",
        "MAX_LINE = 1 << 40",
        "tests/wire/test_streaming.py tests/faults/test_transport.py",
    ),
    Mutant(
        "trailers without end",
        HTTP1,
        "_TRAILER_LIMIT = 16 * 1024",
        "_TRAILER_LIMIT = 1 << 40",
        "tests/transport/test_http1.py",
    ),
    Mutant(
        "reuse after both lengths",
        HTTP1,
        " or (chunked and length is not None))",
        ")",
        "tests/transport/test_http1.py tests/faults/test_connections.py",
    ),
    Mutant(
        "reuse of HTTP/1.0",
        HTTP1,
        'event.http_version < b"1.1" or (chunked',
        "(chunked",
        "tests/transport/test_http1.py tests/faults/test_connections.py",
    ),
    Mutant(
        "bytes after a body",
        HTTP1,
        "            self.clean = False\n            data = data[:left]",
        "            data = data[:left]",
        "tests/transport/test_http1.py tests/faults/test_connections.py",
    ),
    Mutant(
        "hash of the token cache",
        CACHE,
        " or _hash(path.name, payload) != data[len(_MARK) : _HEAD]",
        "",
        "tests/tokens/test_cache.py",
    ),
    Mutant(
        "cache of another server",
        CACHE,
        '"\\0".join((origin, digest, kind))',
        '"\\0".join((digest, kind))',
        "tests/tokens/test_cache.py tests/tokens/test_counting.py",
    ),
    Mutant("symlinks in the cache", CACHE, 'getattr(os, "O_NOFOLLOW", 0)', "0", "tests/tokens/test_cache.py"),
    Mutant(
        "a FIFO in the cache",
        CACHE,
        'getattr(os, "O_NONBLOCK", 0)',
        "0",
        "tests/tokens/test_cache.py",
    ),
    Mutant(
        "values of a show answer",
        "client/count.py",
        "_MAX_SHOW_VALUES = 3_000_000",
        "_MAX_SHOW_VALUES = 1 << 60",
        "tests/tokens/test_hostile_show.py tests/tokens/test_counting.py",
    ),
    Mutant(
        "tokens of a vocabulary",
        "tokens/vocabulary/vocabulary.py",
        "MAX_ENTRIES = 600_000",
        "MAX_ENTRIES = 1 << 60",
        "tests/tokens/test_counting.py",
    ),
    Mutant(
        "credentials of another origin",
        CREDENTIALS,
        "elif known != origin:",
        "elif False:",
        "tests/faults/test_origin.py",
    ),
    Mutant(
        "cloud key over plain http",
        CREDENTIALS,
        'address.url.startswith("https:") and ',
        "",
        "tests/settings/test_settings.py tests/faults/test_origin.py",
    ),
    Mutant(
        "key with a line break",
        CREDENTIALS,
        'if re.search(r"[^\\x21-\\x7e]", key):',
        "if False:",
        "tests/settings/test_settings.py",
    ),
    Mutant(
        "retry after a chunk",
        "client/operations.py",
        "    error.retryable = False",
        "    error.retryable = True",
        "tests/faults/test_fault_table.py",
    ),
    Mutant(
        "retries without a budget",
        "client/session.py",
        "or not self.budget.take()",
        "",
        "tests/client/test_retry.py tests/client/test_client.py",
    ),
    Mutant(
        "loss of a full jitter",
        "client/retry.py",
        "BASE_S = 0.5",
        "BASE_S = 0.0",
        "tests/client/test_retry.py",
    ),
    Mutant(
        "a stream without its end",
        "wire/streaming.py",
        "        if self._finish is None and self.error is None:",
        "        if False:",
        "tests/wire/test_streaming.py",
    ),
    Mutant(
        "done:false in one piece",
        "wire/streaming.py",
        "        if self._finish is None:\n            raise self._incomplete",
        "        if False:\n            raise self._incomplete",
        "tests/wire/test_streaming.py",
    ),
    Mutant(
        "lines end at U+0085",
        "wire/streaming.py",
        'data.split(b"\\n")',
        'data.replace(b"\\xc2\\x85", b"\\n").split(b"\\n")',
        "tests/wire/test_streaming.py",
    ),
    Mutant(
        "many tool calls",
        "wire/responses.py",
        "MAX_TOOL_CALLS = 1000",
        "MAX_TOOL_CALLS = 1 << 40",
        "tests/parity/test_limits_parity.py",
    ),
    Mutant(
        "vectors of zeros",
        "wire/vectors.py",
        'return "" if any(vector) else "is all zero"',
        'return ""',
        "tests/wire/test_vectors.py",
    ),
    Mutant(
        "vectors that are not finite",
        "wire/vectors.py",
        "math.isfinite(sum(vector))",
        "sum(vector) is not None",
        "tests/wire/test_vectors.py",
    ),
    Mutant(
        "booleans in vectors",
        "wire/vectors.py",
        'if body.find(b"u", start, end) >= 0 or body.find(b"s", start, end) >= 0:',
        "if False:",
        "tests/client/test_embedding.py",
    ),
    Mutant(
        "declared pixels",
        "media/image.py",
        "if width * height > limits.max_pixels:",
        "if False:",
        "tests/media/test_images.py",
    ),
    Mutant(
        "a second PNG header",
        "media/headers.py",
        "width, height = max(width, size[0]), max(height, size[1])",
        "width, height = (width, height) if width else size",
        "tests/media/test_images.py",
    ),
    Mutant(
        "size of a file",
        "media/source.py",
        "if size > limits.max_bytes:",
        "if False:",
        "tests/media/test_images.py",
    ),
    Mutant(
        "paths in messages",
        "media/source.py",
        "if len(head) <= _HEAD_CHARS and _PATH.match(head) is not None:",
        "if False:",
        "tests/media/test_images.py",
    ),
    Mutant(
        "private image addresses",
        "media/urls.py",
        "    if not is_public(ip):",
        "    if False:",
        "tests/media/test_image_urls.py",
    ),
    Mutant(
        "fetching unasked",
        "media/load.py",
        "    if not rules.allow_image_urls:",
        "    if False:",
        "tests/parity/test_images_parity.py",
    ),
    Mutant(
        "TLS name of an image",
        "transport/pool.py",
        "start_tls(tls, name,",
        "start_tls(tls, ip or name,",
        "tests/parity/test_images_parity.py",
    ),
    Mutant(
        "redirects to other origins",
        "transport/endpoint.py",
        "_origin(target) != _origin(sent.url) or ",
        "",
        "tests/faults/test_transport.py",
    ),
    Mutant(
        "compressed answers",
        "transport/errors.py",
        "    if encoded:",
        "    if False:",
        "tests/faults/test_bad_inputs.py",
    ),
    Mutant(
        "a prompt over the limit",
        "wire/requests.py",
        '    body["truncate"] = server_cuts',
        '    body["truncate"] = True',
        "tests/wire/test_requests.py",
    ),
    Mutant(
        "one context size for all",
        "wire/requests.py",
        '        options["num_ctx"] = settings.context_size',
        "        pass",
        "tests/wire/test_requests.py",
    ),
    Mutant(
        "NaN in a request",
        "wire/requests.py",
        'if b"null" in text and ',
        "if False and ",
        "tests/wire/test_requests.py",
    ),
    Mutant(
        "more than max_tokens",
        "settings/model.py",
        "self.num_predict > bound:",
        "False:",
        "tests/settings/test_settings.py",
    ),
    Mutant(
        "control characters of a server",
        "wire/responses.py",
        "char if char.isprintable() else",
        "char if True else",
        "tests/wire/test_responses.py tests/wire/test_classify.py",
    ),
)


def changed(folder: Path, mutant: Mutant) -> None:
    """Make the change in a copy of the sources."""
    path = folder / "shared" / "ollama_dify" / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.path}: {mutant.old!r} stands there {text.count(mutant.old)} times")
    path.write_text(text.replace(mutant.old, mutant.new))


def outcome(mutant: Mutant) -> str:
    """What became of a change: "caught", "SURVIVED", or why it could not be tried."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("shared", "packages"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            changed(folder, mutant)
        except (LookupError, OSError) as error:
            return f"OUT OF DATE: {error}"
        environment = {**os.environ, "PYTHONPATH": f"{folder / 'shared'}:{folder / 'packages'}"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "--tb=no",
            *mutant.tests.split(),
        ]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return "caught"  # a test that never ends is one that fails
    return {0: "SURVIVED", 1: "caught"}.get(
        done.returncode, f"NOT TRIED: pytest ended with {done.returncode}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only changes whose name holds one of these words")
    words = parser.parse_args().words
    chosen = [one for one in MUTANTS if not words or any(word in one.name for word in words)]
    found = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for mutant, what in zip(chosen, pool.map(outcome, chosen), strict=True):
            found.append(what)
            print(f"{what:10} {mutant.name}", flush=True)
    caught = found.count("caught")
    print(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
