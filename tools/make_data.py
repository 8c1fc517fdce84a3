"""Draw the two images and set the PDF of the demo again.

The committed files came from this script; it is needed only to change them: `python tools/make_data.py`.
Needs Pillow. Sizes are pixels in images and points (1/72 inch) in the PDF.
"""

import math
import random
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

DATA = Path(__file__).parents[1] / "shared/ollama_dify/demo/data"
Point = tuple[float, float]

# ---------------------------------------------------------------- the chart

CLEAR_NIGHTS = {
    "Jan": 8,
    "Feb": 10,
    "Mar": 14,
    "Apr": 16,
    "May": 15,
    "Jun": 12,
    "Jul": 11,
    "Aug": 12,
    "Sep": 11,
    "Oct": 9,
    "Nov": 6,
    "Dec": 7,
}
PAPER, INK, GRID, BAR, BEST = "#fbf8f1", "#22304a", "#d9d3c4", "#5b7fa6", "#e0a83e"
SCALE = 2  # drawn larger, then reduced: smooth edges


def text(draw: ImageDraw.ImageDraw, at: Point, words: str, size: int, anchor: str = "mm") -> None:
    """Write `words` at a point of the final image."""
    font = ImageFont.load_default(size * SCALE)
    draw.text((at[0] * SCALE, at[1] * SCALE), words, fill=INK, font=font, anchor=anchor)


def chart() -> Image.Image:
    """Return the bar chart of clear nights per month, 960 × 560, with few colours."""
    width, height, left, bottom, step, unit = 960, 560, 90, 480, 70, 21
    image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    draw = ImageDraw.Draw(image)
    text(draw, (left, 44), "Clear nights at Sulvay Observatory", 28, "lm")
    text(draw, (left, 80), f"average year, {sum(CLEAR_NIGHTS.values())} nights in all", 17, "lm")
    for value in (0, 4, 8, 12, 16):
        y = bottom - value * unit
        draw.line([left * SCALE, y * SCALE, 930 * SCALE, y * SCALE], fill=GRID, width=SCALE)
        text(draw, (left - 14, y), str(value), 16, "rm")
    for column, (month, nights) in enumerate(CLEAR_NIGHTS.items()):
        x, top = left + 12 + column * step, bottom - nights * unit
        box = [x * SCALE, top * SCALE, (x + 46) * SCALE, bottom * SCALE]
        colour = BEST if nights == max(CLEAR_NIGHTS.values()) else BAR
        draw.rounded_rectangle(box, radius=5 * SCALE, fill=colour, corners=(True, True, False, False))
        text(draw, (x + 23, top - 14), str(nights), 17)
        text(draw, (x + 23, bottom + 22), month, 17)
    text(draw, (left, 535), "A night counts as clear when the sky stays open for four hours.", 14, "lm")
    return image.resize((width, height), Image.Resampling.LANCZOS).quantize(48)


# ---------------------------------------------------------------- the view of the hill

VIEW = (960, 600)
FLOOR = 470  # height of the moor's edge where the domes stand


def ridge(width: int, base: float, *waves: tuple[float, float, float]) -> list[Point]:
    """Return points of a hill line: `base` less a sum of (height, wavelength, phase) waves."""
    return [
        (x, base - sum(height * math.sin(x / wave + phase) for height, wave, phase in waves))
        for x in range(0, width + 8, 8)
    ]


def sky(size: tuple[int, int], chance: random.Random) -> Image.Image:
    """Return a night sky: a gradient, a blurred Milky Way and stars."""
    width, height = size
    gradient = Image.linear_gradient("L").resize(size)
    image = ImageOps.colorize(gradient, black="#060b1d", mid="#14264a", white="#3f5c78", midpoint=130)
    glow = Image.new("L", size, 0)
    draw = ImageDraw.Draw(glow)
    for _ in range(420):
        along = chance.random()
        x = along * width * 1.1 - width * 0.05 + chance.gauss(0, 50)
        y = height * (0.62 - 0.62 * along) + chance.gauss(0, 46)
        radius = chance.uniform(10, 44)
        box = [x - radius, y - radius * 0.6, x + radius, y + radius * 0.6]
        draw.ellipse(box, fill=chance.randint(25, 85))
    glow = glow.filter(ImageFilter.GaussianBlur(34))
    image = ImageChops.screen(image, ImageOps.colorize(glow, black="#000000", white="#c8b8e8"))
    draw = ImageDraw.Draw(image)
    for _ in range(420):
        x, y = chance.random() * width, chance.random() ** 1.3 * height
        radius = chance.random() ** 5 * 4 + 0.9
        draw.ellipse(
            [x - radius, y - radius, x + radius, y + radius],
            fill=chance.choice(["#ffffff", "#dfe8ff", "#fff1d6", "#ffe0c4"]),
        )
    return image


def dome(draw: ImageDraw.ImageDraw, x: float, radius: float, wall: float, *, colours: list[str]) -> None:
    """Draw a dome centred at `x` on the moor's edge; colours: wall, roof, slit."""
    foot, top = FLOOR * SCALE, (FLOOR - wall) * SCALE
    x, radius = x * SCALE, radius * SCALE
    draw.rectangle([x - radius * 0.92, top, x + radius * 0.92, foot + 40 * SCALE], fill=colours[0])
    draw.pieslice([x - radius, top - radius, x + radius, top + radius], 180, 360, fill=colours[1])
    draw.rectangle([x - radius * 1.04, top - 3 * SCALE, x + radius * 1.04, top + 4 * SCALE], fill=colours[0])
    corners = ((0.10, 0.97), (0.35, 0.91), (0.42, 0.07), (0.10, 0.07))
    draw.polygon([(x + radius * right, top - radius * up) for right, up in corners], fill=colours[2])


def view() -> Image.Image:
    """Return the observatory at night seen from the south, 960 × 600."""
    size = (VIEW[0] * SCALE, VIEW[1] * SCALE)
    image = sky(size, random.Random(1879))
    draw = ImageDraw.Draw(image)
    far = ridge(size[0], 440 * SCALE, (34, 170, 0.4), (16, 67, 1.0), (60, 520, 2.2))
    draw.polygon([*far, size, (0, size[1])], fill="#1a2c44")
    dome(draw, 640, 108, 62, colours=["#8f9aa8", "#c3ccd6", "#b5372f"])
    dome(draw, 392, 52, 44, colours=["#75808e", "#5f8f80", "#7d2b2a"])
    dome(draw, 250, 28, 20, colours=["#626d7b", "#a9b2bd", "#20242d"])
    lodge = [v * SCALE for v in (800, 436, 880, FLOOR + 30)]
    draw.rectangle(lodge, fill="#3b424d")
    draw.polygon([(v * SCALE, h * SCALE) for v, h in ((790, 438), (840, 398), (890, 438))], fill="#2a303a")
    draw.rectangle([v * SCALE for v in (830, 446, 846, 462)], fill="#ffcf7a")
    near = ridge(size[0], (FLOOR + 14) * SCALE, (10, 210, 0.9), (5, 71, 2.0))
    draw.polygon([*near, size, (0, size[1])], fill="#0d1822")
    for step in range(13):  # the white stones of the path
        x, y = 470 + 12 * step - 0.5 * step * step, 590 - 8 * step
        stone = 6 - step * 0.33
        for side in (-1, 1):
            at = x + side * (64 - 4 * step)
            box = [v * SCALE for v in (at - stone, y - stone / 2, at + stone, y + stone / 2)]
            draw.ellipse(box, fill="#8b949c")
    return image.resize(VIEW, Image.Resampling.LANCZOS)


# ---------------------------------------------------------------- the report

REPORT = "mirror-recoating-2023"
PAGE_WIDTH, PAGE_HEIGHT, MARGIN, COLUMNS = 595, 842, 68, 84
SIZES = {"title": 19, "heading": 13, "body": 10.5}
LEADING = 1.45


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the PDF; `after` is the extra space below it."""

    words: str
    style: str
    after: float = 0

    @property
    def height(self) -> float:
        return SIZES[self.style] * LEADING + self.after


def lines(report: str) -> list[Line]:
    """Return the lines of a report, wrapped; blank lines part paragraphs, `|` begins a row of figures."""
    result: list[Line] = []
    for paragraph in re.split(r"\n\n+|\n(?=\| )", report.strip()):
        if paragraph.startswith("# "):
            result.append(Line(paragraph[2:], "title", after=8))
        elif paragraph.startswith("## "):
            result.append(Line(paragraph[3:], "heading", after=3))
        elif paragraph.startswith("| "):
            result.append(Line("    " + paragraph[2:], "body", after=3))
        else:
            *first, last = textwrap.wrap(paragraph, COLUMNS)
            result += [Line(words, "body") for words in first] + [Line(last, "body", after=9)]
    return result


def paginate(content: list[Line]) -> list[list[Line]]:
    """Split lines into pages; a heading stays with the three lines below it."""
    pages: list[list[Line]] = [[]]
    available = PAGE_HEIGHT - 2 * MARGIN
    room: float = available
    for line in content:
        needed = line.height + (3 * SIZES["body"] * LEADING if line.style == "heading" else 0)
        if needed > room:
            pages.append([])
            room = available
        pages[-1].append(line)
        room -= line.height
    return pages


def page_stream(page: list[Line], footer: str) -> bytes:
    """Return the drawing operators of one page."""
    y: float = PAGE_HEIGHT - MARGIN
    operators = []
    for line in page:
        font = "F1" if line.style == "body" else "F2"
        operators.append(show(line.words, font, SIZES[line.style], y))
        y -= line.height
    operators.append(show(footer, "F1", 8.5, MARGIN / 2))
    return "\n".join(operators).encode("cp1252")


def show(words: str, font: str, size: float, y: float) -> str:
    escaped = words.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /{font} {size:g} Tf {MARGIN} {y:.1f} Td ({escaped}) Tj ET"


def pdf(report: str) -> bytes:
    """Return a PDF 1.4 file in the two built-in Helvetica fonts, uncompressed (ISO 32000-1, 7.5)."""
    content = lines(report)
    pages = paginate(content)
    encoding = "/Type /Font /Subtype /Type1 /Encoding /WinAnsiEncoding"
    kids = " ".join(f"{6 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /Lang (en) >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        f"<< {encoding} /BaseFont /Helvetica >>".encode(),
        f"<< {encoding} /BaseFont /Helvetica-Bold >>".encode(),
        f"<< /Title ({content[0].words}) >>".encode("cp1252"),
    ]
    for number, page in enumerate(pages, 1):
        stream = page_stream(page, f"Sulvay Observatory, technical report 41, page {number} of {len(pages)}")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {PAGE_WIDTH} {PAGE_HEIGHT}] "
            f"/Contents {len(objects) + 2} 0 R /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream))
    return assemble(objects)


def assemble(objects: list[bytes]) -> bytes:
    """Number the objects from 1 and add header, cross-reference table and trailer (5 is the info object)."""
    data = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer\n<< /Size %d /Root 1 0 R /Info 5 0 R >>\n" % (len(objects) + 1)
    data += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(data)


def main() -> None:
    chart().save(DATA / "clear-nights.png", optimize=True)
    # A palette of 8 bits keeps it small, and the simulated model can look into it.
    view().quantize(128).save(DATA / "observatory-at-night.png", optimize=True)
    report = (Path(__file__).parent / f"{REPORT}.txt").read_text(encoding="utf-8")
    (DATA / f"{REPORT}.pdf").write_bytes(pdf(report))
    for path in sorted(DATA.iterdir()):
        print(f"{path.stat().st_size:7,d} bytes  {path.relative_to(DATA.parent)}")


if __name__ == "__main__":
    main()
