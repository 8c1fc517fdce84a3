"""One Ray job over loopback: `python -m benchmarks.ray_job URL FOLDER …`; prints a line of JSON.

A process of its own, so that a crash can be a real one. What comes out is in FOLDER/out as Parquet;
FOLDER/checkpoint lets the next run go on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import DataContext
from ray.data.checkpoint import CheckpointConfig

from ollama_dify import EmbeddingSettings
from ollama_dify.ray import Embedder

LONG = "The cat sat on the mat and looked at the dog. " * 300
BLOCKS = 24


def is_bad(row: int) -> bool:
    """Whether a row's text is longer than the model's context."""
    return row % 97 == 5


class _Timed:
    """An embedder that tells the seconds of its batches, CPU and wall, spread over the rows."""

    def __call__(self, table: pa.Table) -> pa.Table:
        began = time.process_time(), time.perf_counter()
        got = self.embed(table)
        ended = time.process_time(), time.perf_counter()
        for name, before, after in zip(("cpu_s", "wall_s"), began, ended, strict=True):
            spent = (after - before) / max(len(got), 1)
            got = got.append_column(name, pa.array([spent] * len(got), pa.float64()))
        return got

    def embed(self, table: pa.Table) -> pa.Table:
        raise NotImplementedError


class Ours(_Timed):
    def __init__(self, settings: EmbeddingSettings) -> None:
        self._embedder = Embedder(settings)

    def embed(self, table: pa.Table) -> pa.Table:
        return self._embedder(table)


class Plain(_Timed):
    """The peer: one request for a whole batch, one bad text fails it."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        from langchain_ollama import OllamaEmbeddings

        self._embeddings = OllamaEmbeddings(model=settings.model, base_url=settings.base_url)

    def embed(self, table: pa.Table) -> pa.Table:
        vectors = self._embeddings.embed_documents(table.column("text").to_pylist())
        size = len(vectors[0])
        return table.append_column("embedding", pa.array(vectors, pa.list_(pa.float32(), size)))


def source(folder: Path, rows: int, bad: bool) -> Path:
    """Rows as Parquet files, made once: `id` and `text`."""
    made = folder / "in"
    made.mkdir(parents=True, exist_ok=True)
    for part in range(BLOCKS):
        file = made / f"{part:03}.parquet"
        if not file.exists():
            ids = range(rows * part // BLOCKS, rows * (part + 1) // BLOCKS)
            texts = [LONG if bad and is_bad(row) else f"text number {row}" for row in ids]
            pq.write_table(pa.table({"id": list(ids), "text": texts}), file)
    return made


def crash_at(out: Path, files: int) -> None:
    """End this process, as a machine that fails would, once so many files are written."""
    while sum(1 for _ in out.glob("*.parquet")) < files:
        time.sleep(0.02)
    os._exit(42)


def main() -> None:
    options = _options()
    folder = Path(options.folder)
    out, checkpoint = folder / "out", folder / "checkpoint"
    out.mkdir(parents=True, exist_ok=True)
    if options.crash_at:
        threading.Thread(target=crash_at, args=(out, options.crash_at), daemon=True).start()
    _start()
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # One read task per file: small files would otherwise become one block, and a crash would lose all of it.
    context.use_datasource_v2 = False
    if options.resumable:
        context.checkpoint_config = CheckpointConfig(
            id_column="id", checkpoint_path=str(checkpoint), delete_checkpoint_on_success=False
        )
    settings = EmbeddingSettings(
        model=options.model, base_url=options.url, context_size=256, batch_size=min(64, options.batch // 4)
    )
    dataset = ray.data.read_parquet(
        str(source(folder, options.rows, options.bad)), override_num_blocks=BLOCKS
    )
    dataset = dataset.map_batches(
        {"ours": Ours, "plain": Plain}[options.embedder],
        fn_constructor_args=(settings,),
        batch_format="pyarrow",
        batch_size=options.batch,
        compute=ray.data.ActorPoolStrategy(size=1),
        # It waits for servers. A checkpoint's own actor holds a core too, and reading needs one.
        num_cpus=0,
    )
    began = time.monotonic()
    dataset.write_parquet(str(out))
    seconds = time.monotonic() - began
    ray.shutdown()
    print(json.dumps(_figures(out, seconds)))


def _start(tries: int = 3) -> None:
    """Ray on loopback alone. On a busy machine its own processes may miss the 30 s that it gives them."""
    for left in reversed(range(tries)):
        try:
            ray.init(
                _node_ip_address="127.0.0.1",
                include_dashboard=False,
                num_cpus=2,
                object_store_memory=200 * 2**20,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception:
            if not left:
                raise
            ray.shutdown()


def _figures(out: Path, seconds: float) -> dict[str, Any]:
    table = pq.read_table(out)
    spent = {name: sum(table[name].to_pylist()) for name in ("cpu_s", "wall_s")}
    return {"rows": len(table), "seconds": seconds, **spent}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder")
    parser.add_argument("--embedder", choices=["ours", "plain"], default="ours")
    parser.add_argument("--model", default="all-minilm")
    parser.add_argument("--rows", type=int, default=2_400)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--bad", action="store_true", help="some texts are longer than the model's context")
    parser.add_argument(
        "--resumable", action="store_true", help="keep a checkpoint, go on from what is there"
    )
    parser.add_argument("--crash-at", type=int, help="end the process after so many files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
