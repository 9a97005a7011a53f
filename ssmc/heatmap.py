"""A picture of how busy every processing element was; drawn by matplotlib, which is an extra."""

from __future__ import annotations

import io

from ssmc.diagnostics import UserError
from ssmc.target import RunResult


def available() -> None:
    """Raise UserError where matplotlib is missing: better before the run than after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            "pictures need matplotlib", hint="pip install 'ssmc[plots]', or: pip install matplotlib"
        ) from None


def picture(result: RunResult) -> bytes:
    """A PNG of the share of the run's cycles in which each element computed. `result` must have its occupancy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert result.occupancy is not None
    stats, rows, cols = result.stats, *result.occupancy.shape
    percent = 100.0 * result.occupancy / max(1, stats.cycles or 0)
    figure = Figure(figsize=(6.4, 5.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(percent, vmin=0.0, interpolation="nearest", extent=(0, cols, rows, 0))
    axes.set(xlabel="column", ylabel="row")
    axes.set_title(f"{stats.arch}: {stats.cycles} cycles, {percent.mean():.1f} % of them busy on average", fontsize=10)
    figure.colorbar(image, label="cycles in which an element computes, %")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
