"""A run's diagnosis as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asrkern._atomic_write import atomic_write
from asrkern._optional import require

if TYPE_CHECKING:
    from asrkern.training.diagnostics.monitor import CollapseMonitor


def plot(monitor: CollapseMonitor, path: Path) -> None:
    """Plot the loss; blanks, dependence and dropout noise; letters and the targets' letters; variation by layer."""
    require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    (loss, outputs), (letters, layers) = figure.subplots(2, 2)
    figure.suptitle(f"step {monitor.looks[-1].step}: {monitor.verdicts[-1].name}")

    loss.plot(range(1, len(monitor.losses) + 1), monitor.losses, linewidth=0.8)
    loss.set(title="loss", xlabel="step")

    steps = [m.step for m in monitor.looks]
    for name in ("blank_fraction", "entropy", "dependence", "dropout_noise", "error_rate"):
        outputs.plot(
            steps, [getattr(m, name) for m in monitor.looks], marker=".", label=name.replace("_", " ")
        )
    outputs.set(title="outputs (fractions; nats a frame)", xlabel="step")
    outputs.legend()

    last = monitor.looks[-1]
    for counts, label, shift in ((last.target_tokens, "targets", -0.2), (last.tokens, "best paths", 0.2)):
        total = max(sum(counts.values()), 1)
        letters.bar(
            [x + shift for x in range(len(monitor.labels))],
            [counts.get(name, 0) / total for name in monitor.labels],
            0.4,
            label=label,
        )
    letters.set_xticks(range(len(monitor.labels)), [name.replace(" ", "␣") for name in monitor.labels])
    letters.set(title="share of each label")
    letters.legend()

    layers.plot(
        [max(s.variation, 1e-12) for s in last.layers], range(len(last.layers)), marker=".", label="output"
    )
    trained = [(s.gradient_std, i) for i, s in enumerate(last.layers) if s.gradient_std]
    if trained:
        layers.plot(*zip(*trained), marker=".", linestyle="--", label="gradient std")
    layers.set_yticks(range(len(last.layers)), [s.name for s in last.layers], fontsize=6)
    layers.invert_yaxis()
    layers.set(title="variation between frames / size", xscale="log")
    layers.legend()
    with atomic_write(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=100)
