"""Self-contained HTML: pictures and curves are embedded, nothing is fetched, values are escaped."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("harald.reporting", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **context: Any) -> str:
    """templates/<template>.html with the context. All templates extend page.html."""
    return _ENVIRONMENT.get_template(f"{template}.html").render(**context)


def embed(image: Image.Image, side: int | None = None) -> str:
    """A picture as a data URI (PNG); scaled to at most `side` pixels."""
    if side and max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def embed_file(path: Path, side: int | None = None) -> str:
    with Image.open(path) as image:
        return embed(image, side)


def curves(series: dict[str, list[tuple[float, float]]], x: str, y: str) -> str:
    """Line plot as inline SVG (a safe string). series: name -> [(x, y), ...]."""
    import matplotlib
    from markupsafe import Markup
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "harald", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axes = figure.subplots()
        for name, points in series.items():
            axes.plot([p[0] for p in points], [p[1] for p in points], label=name, linewidth=1.3)
        axes.set(xlabel=x, ylabel=y)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            axes.legend(frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # drawn by matplotlib from our numbers and escaped names
