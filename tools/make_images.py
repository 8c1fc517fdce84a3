"""Make the images of the documentation again: `python -m tools.make_images [form] [doctor] [demo]`.

The form: a screenshot beside the code that it writes. Doctor and demo: what they print, as SVG without
fonts and scripts. The architecture is drawn by hand. Needs Pillow, rich, chromium and chromedriver.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from html import unescape
from pathlib import Path

from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from tests.browser import started_browser
from tests.docs.samples import sample

from ollama_dify.testing import SimulatedModel, SimulatedOllama

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LANGUAGES: tuple[str, ...] = ("en", "ja", "zh")
COLUMNS, LINE = 100, 24.4
Timed = tuple[float, Text]

SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} HEIGHT" role="img">
<title>TITLE</title><style>
text {{
  font: {char_height}px ui-monospace, "DejaVu Sans Mono", "Noto Sans Mono CJK JP", Menlo, Consolas, monospace;
  white-space: pre; animation: appear 1ms both }}
@keyframes appear {{ from {{ opacity: 0 }} }}
@keyframes scroll {{ SCROLL }}
.all {{ animation: scroll SECONDSs steps(1) both }}
@media (prefers-reduced-motion: reduce) {{ text {{ animation: none }} .all {{ animation-duration: 1ms }} }}
{styles}</style>
<rect width="{width}" height="HEIGHT" rx="8" fill="#292929"/>
<clipPath id="window"><rect width="{width}" height="HEIGHT"/></clipPath>
<g clip-path="url(#window)"><g class="all" transform="translate(12 8)">{matrix}</g></g>
</svg>"""


def draw(name: str, title: str, lines: Sequence[Timed], rows: int) -> None:
    """Lines with the seconds at which each appears, in a window of so many rows that scrolls at its end."""
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        times: list[float] = []
        for at, text in lines:
            wrapped = text.wrap(console, COLUMNS) or [Text("")]
            times += [at] * len(wrapped)
            for one in wrapped:
                console.print(one, no_wrap=True, crop=True)
        svg = console.export_svg(title=title, code_format=SVG, unique_id="t")
    rows = min(rows, len(times))
    end = times[-1] + 1
    steps = {f"{100 * times[row] / end:.2f}%": rows - 1 - row for row in range(rows, len(times))}
    scroll = " ".join(
        f"{at} {{ transform: translate(12px, {8 + up * LINE:.1f}px) }}" for at, up in steps.items()
    )
    scroll += f" 100% {{ transform: translate(12px, {8 + (rows - len(times)) * LINE:.1f}px) }}"
    svg = svg.replace("HEIGHT", f"{rows * LINE + 24:.0f}").replace("TITLE", title)
    svg = svg.replace("SCROLL", scroll).replace("SECONDS", f"{end:.1f}")
    # rich counts characters here; Japanese and Chinese ones take two columns.
    svg = re.sub(
        r'textLength="[\d.]+"([^>]*)>([^<]*)',
        lambda found: f'textLength="{cell_len(unescape(found[2])) * 12.2:.1f}"{found[1]}>{found[2]}',
        svg,
    )
    svg = re.sub(
        r' clip-path="url\(#t-line-(\d+)\)"',
        lambda found: f' style="animation-delay:{times[int(found[1])]:.1f}s"',
        svg,
    )
    (IMAGES / name).write_text(svg, "utf-8")


def typed(command: str) -> Text:
    return Text.assemble(("$ ", "green"), (command, "bold"))


def doctor(language: str) -> None:
    """From the error to the answer, as the guide tells it."""
    option = "" if language == "en" else f" --lang {language}"
    scenes = (
        ("python app.py", "ConnectionFailedError"),
        (f"ollama-dify doctor{option}", "doctor"),
        (f"ollama-dify doctor --base-url http://host.docker.internal:11434{option}", "doctor-fixed"),
    )
    at, lines = 0.5, []
    for command, name in scenes:
        lines.append((at, typed(command)))
        at += 1
        for line in sample(name, language).rstrip().split("\n"):
            text = Text(line)
            for mark, colour in {"✓": "green", "✗": "red", "–": "bright_black", "→ .*": "yellow"}.items():
                text.highlight_regex(mark, colour)
            text.highlight_regex(r"^[\w.]+Error", "red")
            lines.append((at, text))
            at += 0.15
        lines.append((at, Text("")))
        at += 2
    draw(f"doctor.{language}.svg", "ollama-dify doctor", lines[:-1], rows=40)


def lines_of(command: Sequence[str], environ: Mapping[str, str], folder: str) -> Iterator[str]:
    """What a command prints in a terminal, line by line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, COLUMNS, 0, 0))
    with subprocess.Popen(command, env=environ, cwd=folder, stdout=theirs, stderr=theirs):
        os.close(theirs)
        rest = ""
        # Linux ends a terminal that nobody writes to any more with an error.
        with suppress(OSError), os.fdopen(ours, encoding="utf-8", newline="") as screen:
            while piece := screen.read(1):
                rest += piece
                if rest.endswith("\r\n"):
                    yield rest[:-2]
                    rest = ""


def demo() -> None:
    """The whole demo against the simulated server, at its own pace but for long pauses."""
    lines: list[Timed] = [(0.5, typed("ollama-dify demo"))]
    at = last = 1.5
    environ = {**os.environ, "TERM": "xterm-256color", "OLLAMA_HOST": "http://127.0.0.1:9"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ollama_dify", "demo", "--index-dir", ".demo"]
        started = time.monotonic()
        for line in lines_of(command, environ, folder):
            now = time.monotonic() - started
            at += max(0.12, min(now - last, 0.7))
            last = now
            shown = re.sub(r"127\.0\.0\.1:\d{4,}", "127.0.0.1:11434", line.rpartition("\r\033[K")[2])
            lines.append((at, Text.from_ansi(shown)))
    draw("demo.svg", "ollama-dify demo", lines, rows=32)


@contextmanager
def page(server: SimulatedOllama) -> Iterator[str]:
    command = [sys.executable, "-m", "ollama_dify", "form", "llava", "--web", "--no-open"]
    command += ["--base-url", server.base_url.replace("127.0.0.1", "localhost")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running.stdout.readline().split()[-1]
        finally:
            running.terminate()


def form() -> None:
    """The form beside its code, filled from a server with a model that reads images."""
    models = [SimulatedModel("llava", ("completion", "vision"), context_length=4096)]
    with (
        SimulatedOllama(models, port=11434) as server,
        page(server) as address,
        tempfile.TemporaryDirectory() as folder,
    ):
        started = started_browser(Path(folder))
        browser = next(started)
        browser.devtools("Emulation.setScrollbarsHidden", hidden=True)
        for language in LANGUAGES:
            browser.open(address.replace("lang=", f"lang={language}&was="), 1180, 860)
            browser.wait(lambda: browser.text("#hint-model"), "the model's capabilities")
            height = browser.run("return document.querySelector('#try').getBoundingClientRect().top")
            size = {"width": 1180, "height": int(height), "deviceScaleFactor": 1, "mobile": False}
            browser.devtools("Emulation.setDeviceMetricsOverride", **size)
            path = IMAGES / f"form.{language}.png"
            browser.screenshot(path)
            Image.open(path).quantize(64).save(path, optimize=True)
        browser.close()
        started.close()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or ["form", "doctor", "demo"]
    if "form" in wanted:
        form()
    if "doctor" in wanted:
        for name in LANGUAGES:
            doctor(name)
    if "demo" in wanted:
        demo()
