"""Charts in a page: drawn by matplotlib, in the colours and the font of report.css, without its document around them.

::

    with drawing.style():
        figure, axes = drawing.sheet((5.2, 2.9), (0.11, 0.16, 0.86, 0.74))
        axes.plot(x, y, color=drawing.colour("series-1"), gid="series-1", clip_on=False)
        text = drawing.svg(figure)

Of what is drawn, paths and texts are kept: lines, patches, the labels of axes. Marks, collections (`scatter`,
`fill_between`) and ticks are refused, since they need ids, and a page holds many charts; `dots` draws round marks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any
from xml.etree import ElementTree

from robustgate.core.records import REFERENCE, Results, is_control

# The hues of report.css, and the dashes that tell apart lines of one hue.
HUES = 6
DASHES = ("", "5 2", "1.5 1.5")
# Those of controls, which share the reference's colour.
CONTROL_DASHES = ("4 3", "1 2.5", "8 2 1 2")
# The variables of report.css that a chart may use. What stands for them while it is drawn, since matplotlib takes no
# other than real colours; none is black, which matplotlib leaves out of a text.
VARIABLES = (
    *(f"series-{number}" for number in range(HUES + 1)),
    "ink", "soft", "line", "faint", "page", "link",
)  # fmt: skip
_STAND_INS = {name: f"#0001{number:02x}" for number, name in enumerate(VARIABLES)}
_NAMES = {stand_in: name for name, stand_in in _STAND_INS.items()}
# What report.css says of every path and text of a chart (`.drawn`), so that they need not.
_ASSUMED = {
    "path": ("fill: none", "stroke-dashoffset: 0"),
    "text": ("font-size: 10px", f"fill: {_STAND_INS['soft']}"),
}
_DROPPED = ("font-family", "stroke-linejoin", "stroke-linecap: square", "stroke-linecap: butt", "stroke-miterlimit")
_SPACE = "{http://www.w3.org/2000/svg}"

Size = tuple[float, float]
Place = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a compression is drawn, in every chart of a report: a variable of report.css, dashes, a width in points."""

    series: str
    dash: str = ""
    width: float = 1.5
    order: int = 3  # what lies above what: the thick reference below, so that it hides none

    @property
    def style(self) -> dict[str, Any]:
        """What `plot` takes."""
        return {
            "color": colour(self.series),
            "gid": self.series,
            "linewidth": self.width,
            "linestyle": (0, tuple(map(float, self.dash.split()))) if self.dash else "-",
            "zorder": self.order,
            "clip_on": False,
        }


def looks(results: Results) -> dict[str, Look]:
    """Return how each compression is drawn: the reference thick, below all others, controls dashed in its colour."""
    names = list(dict.fromkeys(case.compression for case in results.cases))
    names += [name for name in dict.fromkeys(record.compression for record in results.variants) if name not in names]
    controls = [name for name in names if is_control(name)]
    others = [name for name in names if name != REFERENCE and not is_control(name)]
    found = {REFERENCE: Look(series="series-0", width=3.0, order=2)}
    for place, name in enumerate(controls):
        dash = CONTROL_DASHES[place % len(CONTROL_DASHES)]
        found[name] = Look(series="series-0", dash=dash, width=1.9)
    for place, name in enumerate(others):
        found[name] = Look(series=f"series-{1 + place % HUES}", dash=DASHES[place // HUES % len(DASHES)])
    return found


def colour(variable: str) -> str:
    """Return what stands for a variable of report.css while a chart is drawn."""
    return _STAND_INS[variable]


@contextmanager
def style() -> Iterator[None]:
    """Draw as a report does: a user's own matplotlib style is none of the report's."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        soft = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), colour("soft"))
        settings: Any = {"svg.fonttype": "none", "path.simplify": False, "lines.scale_dashes": False}
        matplotlib.rcParams.update(settings | soft | {"font.sans-serif": ["DejaVu Sans"], "text.parse_math": False})
        yield


def sheet(size: Size, place: Place) -> tuple[Any, Any]:
    """Return a figure of `size` inches, and its axes at left, bottom, width and height in it, without frame or ticks.

    The labels of both axes are there, and faint lines across at those of the vertical one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    axes: Any = figure.add_axes(place)
    axes.tick_params(bottom=False, left=False, pad=2)
    axes.grid(axis="y", color=colour("line"), linewidth=0.8, clip_on=False)
    axes.spines[:].set_visible(False)
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)
    return figure, axes


def dots(axes: Any, spots: Iterable[tuple[float, float]], look: Look, *, size: float, hollow: bool = False) -> None:
    """Draw round marks `size` points wide, in the colour of `look`; hollow ones show the page within."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    ends = [spot for spot in spots for _ in range(2)]  # a dot is a line of no length, with round ends
    if not ends:
        return
    path = Path(ends, [Path.MOVETO, Path.LINETO] * (len(ends) // 2))
    widths = {look.series: size, "page": size - 2.4} if hollow else {look.series: size}
    for variable, width in widths.items():
        axes.add_patch(
            PathPatch(
                path, fill=False, color=colour(variable), linewidth=width, capstyle="round", clip_on=False,
                zorder=look.order + 0.5, gid=f"{'hollow' if hollow else 'dots'} {variable}",
            )
        )  # fmt: skip


def view_box(size: Size) -> str:
    """Return the coordinates of an SVG of `size` inches."""
    return "0 0 " + " ".join(f"{72 * inches:g}" for inches in size)


def svg(figure: Any) -> str:
    """Return what is drawn, to stand in an <svg> with the `view_box` of its size.

    An artist's `gid` becomes its class. No id is in it, no link, and no colour but the variables of report.css.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    drawn = ElementTree.fromstring(stream.getvalue().split("?>", 1)[1])  # noqa: S314 -- from matplotlib
    if next(drawn.iter(f"{_SPACE}use"), None) is not None:
        raise ValueError("a chart of a report is drawn of paths and texts only: no marks, no collections, no ticks")
    return "".join(_bare(drawn))


def _bare(group: ElementTree.Element) -> Iterator[str]:
    for element in group:
        kind = element.tag.removeprefix(_SPACE)
        if kind == "g":
            yield from _bare(element)
        elif kind == "path":
            name = group.get("id", "")
            known = "" if re.search(r"_\d+$", name) else f' class="{escape(name)}"'
            yield f'<path{known} d="{_path(element.get("d", ""))}"{_styled(element, kind)}/>'
        elif kind == "text":
            turned = element.get("transform", "")
            turn = "" if turned.startswith("rotate(-0 ") or not turned else f' transform="{_rounded(turned)}"'
            spot = "".join(f' {axis}="{_rounded(element.get(axis, "0"))}"' for axis in "xy")
            yield f"<text{spot}{turn}{_styled(element, kind)}>{escape(element.text or '', quote=False)}</text>"


def _path(written: str) -> str:
    """Return a path in short: ``M17.3 92.1L44.9 33.7``, and ``M17.3 92.1h0`` for a dot."""
    path = re.sub(r"\s*([A-Za-z])\s*", r"\1", _rounded(" ".join(written.split())))
    return re.sub(r"M([^ML]+)L\1(?![\d.])", r"M\1h0", path)


def _rounded(written: str) -> str:
    """Return a text with its numbers to a hundredth of a point."""
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), written)


def _styled(element: ElementTree.Element, kind: str) -> str:
    told = [part.strip() for part in (element.get("style") or "").split(";")]
    kept = [part for part in told if part and part not in _ASSUMED[kind] and not part.startswith(_DROPPED)]
    text = ";".join(part.replace(": ", ":") for part in kept)
    for stand_in, name in _NAMES.items():
        text = text.replace(stand_in, f"var(--{name})")
    return f' style="{text}"' if text else ""
