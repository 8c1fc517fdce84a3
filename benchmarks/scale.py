"""`python -m benchmarks.scale`: what limits many servers behind one address, measured and drawn.

Simulated servers take a given time for a request and work on one at a time; the client is the real one. Ray's
figures need Ray and langchain-ollama; `--no-ray` leaves them as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ollama_dify import AsyncOllamaClient, EmbeddingSettings

from .server import pin, started

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs"
_BEGIN, _END = "<!-- figures: written by python -m benchmarks.scale -->\n", "<!-- end of figures -->\n"
BATCH, DIMENSION, SERVICE_S, SECONDS = 64, 768, 0.2, 1.5
SERVERS = (1, 2, 4, 8, 16, 32, 64, 128)
CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64)
FIXED_SERVERS = 16
PER_SERVER = BATCH / SERVICE_S


async def _serve(servers: int) -> None:
    """So many servers as one address: the balancer's part is done by who is free first."""
    free = asyncio.Semaphore(servers)
    vector = ",".join(f"{math.sin(number) / 30:.8f}" for number in range(DIMENSION))
    bodies: dict[int, bytes] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                given = (await reader.readexactly(int(length or 0))).partition(b'"input":[')[2]
                count = given.partition(b"]")[0].count(b'","') + 1
                if count not in bodies:
                    body = ('{"model":"m","embeddings":[[' + "],[".join([vector] * count) + "]]}").encode()
                    top = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    bodies[count] = top % len(body) + body
                async with free:
                    await asyncio.sleep(SERVICE_S)
                writer.write(bodies[count])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def _simulated(servers: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.scale", "--serve", str(servers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


async def _embedded(url: str, texts: Sequence[str], concurrency: int) -> tuple[float, float]:
    """Texts per second, and CPU seconds of this process per text."""
    settings = EmbeddingSettings(model="m", base_url=url, batch_size=BATCH, max_concurrency=concurrency)
    async with AsyncOllamaClient(settings) as client:
        await client.embed(texts[:BATCH])
        cpu, wall = time.process_time(), time.perf_counter()
        await client.embed(texts)
        return len(texts) / (time.perf_counter() - wall), (time.process_time() - cpu) / len(texts)


def simulate(servers: int, concurrency: int) -> float:
    """Measured texts/s."""
    expected = min(servers, concurrency) * PER_SERVER
    batches = max(4 * min(servers, concurrency), round(min(expected, 25_000) * SECONDS / BATCH))
    with _simulated(servers) as url:
        texts = [f"text number {number}" for number in range(batches * BATCH)]
        return asyncio.run(_embedded(url, texts, concurrency))[0]


def client_cost() -> dict[str, Any]:
    """CPU seconds of the client per text by the vectors' length, and per token of a long text."""
    short = [f"text number {number}" for number in range(100 * BATCH)]
    words = "The harbour was opened in the spring of that year and its lighthouse is red. " * 128
    with started() as server:
        costs: dict[str, Any] = {}
        for dimension in (384, 768, 1024):
            server.answer(dimension=dimension)
            costs[str(dimension)] = min(asyncio.run(_embedded(server.url, short, 4))[1] for _ in range(3))
        server.answer(dimension=8)
        long = [f"{number} {words}" for number in range(10 * BATCH)]
        few, many = (
            min(asyncio.run(_embedded(server.url, texts, 4))[1] for _ in range(3)) for texts in (short, long)
        )
        costs["token"] = max(many - few, 0.0) / len(words.split())
        return costs


def ray_figures(rows: int = 40_000) -> dict[str, Any]:
    """The same job with `Embedder` and with the peer's class."""
    found: dict[str, Any] = {}
    with started() as server:
        server.answer(dimension=DIMENSION)
        for embedder in ("ours", "plain"):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "benchmarks.ray_job", server.url, folder, "--model=bench"]
                command += [f"--embedder={embedder}", f"--rows={rows}", "--batch=1024"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=_ROOT)
                if done.returncode:
                    raise SystemExit(done.stderr)
                found[embedder] = json.loads(done.stdout.splitlines()[-1])
    return found


def limit(servers: float, concurrency: float, cpu_s: float) -> float:
    """Texts/s that the arithmetic allows: the servers', the requests' under way, the client's core."""
    return min(servers * PER_SERVER, concurrency * PER_SERVER, 1 / cpu_s)


def markdown(figures: dict[str, Any]) -> str:
    costs = figures["cost"]
    lines = ["| client CPU | µs | per core and second |", "|---|---:|---:|"]
    for dimension in (384, 768, 1024):
        cost = costs[str(dimension)]
        lines.append(f"| a text, vector of {dimension} numbers | {cost * 1e6:.0f} | {1 / cost:,.0f} texts |")
    token = costs["token"]
    lines.append(
        f"| each word more in a text | {token * 1e6:.3f} | {1 / max(token, 1e-9) / 1e6:,.0f} million words |"
    )
    if "ray" in figures:
        lines += [
            "",
            "| one Ray actor, 768 numbers | CPU per text | texts/s while it embeds |",
            "|---|---:|---:|",
        ]
        for name, label in (("ours", "`Embedder`"), ("plain", "plain `OllamaEmbeddings`")):
            job = figures["ray"][name]
            cpu, rate = job["cpu_s"] / job["rows"], job["rows"] / job["wall_s"]
            lines.append(f"| {label} | {cpu * 1e6:.0f} µs | {rate:,.0f} |")
    cost = costs[str(DIMENSION)]
    lines += [
        "",
        f"In one day, with servers of {PER_SERVER:.0f} texts/s each and vectors of {DIMENSION} numbers:",
        "",
        "| texts | texts/s | servers | connections (2 each) | client cores | vectors (float32) |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for exponent in (6, 7, 8, 9):
        rate = 10**exponent / 86_400
        servers = math.ceil(rate / PER_SERVER)
        size = 10**exponent * DIMENSION * 4 / 1e9
        lines.append(
            f"| 10^{exponent} | {rate:,.0f} | {servers} | {2 * servers} | {math.ceil(rate * cost)} "
            f"| {size:,.0f} GB |"
        )
    return "\n".join(lines) + "\n"


def plot(figures: dict[str, Any]) -> str:
    """Two curves, measured points over the arithmetic's line, both axes logarithmic."""
    cost = figures["cost"][str(DIMENSION)]
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 340" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    parts += _curve(
        60, "servers (max_concurrency = 2 × servers)", figures["servers"], lambda n: limit(n, 2 * n, cost)
    )
    title = f"max_concurrency ({FIXED_SERVERS} servers)"
    parts += _curve(490, title, figures["concurrency"], lambda n: limit(FIXED_SERVERS, n, cost))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _curve(left: int, title: str, measured: dict[str, float], line: Any) -> list[str]:
    points = [(int(count), rate) for count, rate in measured.items()]
    most = points[-1][0]

    def at(count: float, rate: float) -> str:
        return f"{left + 320 * math.log(count, most):.1f},{300 - 80 * math.log10(rate / 100):.1f}"

    parts = [f'<text x="{left}" y="24" font-size="14">texts/s by {title}</text>']
    for power in (2, 3, 4, 5):
        y = 300 - 80 * (power - 2)
        parts.append(f'<line x1="{left}" x2="{left + 320}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{10**power:,}</text>')
    steps = [most ** (number / 60) for number in range(61)]
    path = " ".join(at(step, line(step)) for step in steps)
    parts.append(f'<polyline points="{path}" fill="none" stroke="#888" stroke-width="2"/>')
    for count, rate in points:
        x, height = at(count, rate).split(",")
        parts.append(f'<circle cx="{x}" cy="{height}" r="4" fill="#2a7f62"/>')
        parts.append(f'<text x="{x}" y="318" text-anchor="middle">{count}</text>')
    parts.append(
        f'<text x="{left}" y="334" fill="#555">points: measured; line: the smallest of the limits</text>'
    )
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, metavar="N", help="be N simulated servers")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray's figures as they are")
    options = parser.parse_args()
    if options.serve:
        pin(0)
        asyncio.run(_serve(options.serve))
        return
    figures: dict[str, Any] = {}
    file = _DOCS / "scale.json"
    if file.exists():
        figures = json.loads(file.read_text("utf-8"))
    if not options.no_ray:
        figures["ray"] = ray_figures()
    figures["cost"] = client_cost()
    figures["servers"] = {str(count): simulate(count, min(2 * count, 256)) for count in SERVERS}
    figures["concurrency"] = {str(count): simulate(FIXED_SERVERS, count) for count in CONCURRENCIES}
    file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    (_DOCS / "scale.svg").write_text(plot(figures), "utf-8")
    page = _DOCS / "scale.md"
    before, _, rest = page.read_text("utf-8").partition(_BEGIN)
    page.write_text(f"{before}{_BEGIN}\n{markdown(figures)}\n{_END}{rest.partition(_END)[2]}", "utf-8")
    print(markdown(figures))
    for name in ("servers", "concurrency"):
        print(name, {count: round(rate) for count, rate in figures[name].items()})


if __name__ == "__main__":
    main()
