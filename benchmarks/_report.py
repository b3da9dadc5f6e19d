"""What the benchmarks show: a progress bar, tables, a chart."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any


def command_line(script: str, argv: Sequence[str]) -> str:
    """The command as results tell it: absolute paths, which are one machine's, as seen from the working directory."""
    shown = []
    for argument in argv:
        option, equals, value = argument.rpartition("=") if argument.startswith("-") else ("", "", argument)
        shown.append(option + equals + (os.path.relpath(value) if os.path.isabs(value) else value))
    return shlex.join(["python", script, *shown])


class Progress:
    """A bar on stderr, if that is a terminal."""

    width = 30

    def start(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._draw()

    def step(self) -> None:
        self.done += 1
        self._draw()

    def end(self) -> None:
        """Remove the bar."""
        self._write("\r\033[K")

    def _draw(self) -> None:
        filled = self.width * self.done // self.total
        bar = "#" * filled + "." * (self.width - filled)
        self._write(f"\r{self.title} [{bar}] {self.done}/{self.total}")

    def _write(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(text)
            sys.stderr.flush()


def _latency(percentile: str) -> Callable[[dict[str, Any]], str]:
    return lambda found: f"{1000 * found['latency_seconds'][percentile]:.1f}"


def _difference(found: dict[str, Any]) -> str:
    value = found["largest_difference"]
    return "not comparable" if value is None else f"{value:.1e}"


def _processor(machine: dict[str, Any]) -> str:
    if machine["gpu"]:
        return machine["gpu"]
    isa, torch_isa = machine["asrkern_isa"], machine["torch_isa"]
    # Stock torch's times are then those of another instruction set, and not to be taken for a CPU's that has this one.
    beside = "" if isa.split("_")[0] == torch_isa.lower() else f" beside torch's {torch_isa}"
    return f"{machine['cpu']}, {isa}{beside}, {machine['threads']} threads"


def _tolerances(report: dict[str, Any]) -> str:
    values = dict.fromkeys(found["tolerance"] for found in report["backends"].values())
    return ", with fewer bits ".join(f"{value:.0e}" for value in values)


def format_report(report: dict[str, Any]) -> str:
    """The text for one job of ``rtf.py``; no times and no speed-up if its comparison failed."""
    machine = report["machine"]
    lines = [
        "",
        f"{report['name']} ({report['weights']}, {report['parameters'] / 1e6:.1f} M parameters) on "
        f"{report['device']}: {_processor(machine)}; torch {machine['torch']}",
        f"utterances: {report['utterances']}, requests: {report['requests']}, each timed {report['repeats']} x, "
        f"audio: {report['audio_seconds']:.1f} s",
        "",
    ]
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("largest |d log p|", _difference),
        ("equal texts", lambda found: f"{found['equal_transcripts']}/{report['utterances']}"),
    ]
    if report["passed"]:
        (found, *_) = report["backends"].values()
        columns += [
            *(
                (f"{stage} s", lambda f, stage=stage: f"{f['stages_seconds'][stage]:.3f}")
                for stage in found["stages_seconds"]
            ),
            ("RTF", lambda found: f"{found['rtf']:.4f}"),
            ("RTFx", lambda found: f"{found['rtfx']:.1f}"),
            *((f"{percentile} ms", _latency(percentile)) for percentile in found["latency_seconds"]),
            ("n", lambda found: str(found["timed_requests"])),
            ("peak MiB", lambda found: f"{found['peak_memory_mib']:.0f}"),
            ("above imports", lambda found: f"{found['memory_mib']:.0f}"),
            ("of stock's", lambda found: f"{found['memory_of_stock']:.2f}"),
            ("speed-up", lambda found: f"{found['speed_up']:.2f}"),
        ]
    rows = [["backend", *(header for header, _ in columns)]]
    rows += [[name, *(cell(found) for _, cell in columns)] for name, found in report["backends"].items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        lines.append("  ".join(cells))
    lines.append("")
    lines += [f"left out: {name} ({reason})" for name, reason in report["left_out"].items()]
    if report["passed"]:
        lines.append(
            f"Differences (at most {_tolerances(report)}) and texts are against stock, packed; "
            "speed-up is against the faster stock backend, peak memory above imports against the smaller one."
        )
    else:
        lines.append(
            f"FAILED: a difference is over the tolerance of {_tolerances(report)}; nothing was timed."
        )
    lines += [f"  {text}" for text in report.get("transcripts", [])[:3]]
    return "\n".join(lines)


def format_models(command: str, reports: Sequence[dict[str, Any]]) -> str:
    """One table of all jobs of ``rtf.py`` for each device: the speed-up of each backend, and where the time goes."""
    tables = []
    for device in dict.fromkeys(report["device"] for report in reports):
        chosen = [report for report in reports if report["device"] == device]
        tables.append(
            f"`{command}` on {_processor(chosen[0]['machine'])}; torch {chosen[0]['machine']['torch']}. Speed-up is against "
            "the faster stock backend, in outputs that were compared first; seconds are for all of the audio, "
            "stage by stage: the faster stock backend / asrkern, then with fewer bits. Memory is the peak of a process "
            "above what it had after its imports, of the smaller stock backend's: asrkern, then with fewer bits.\n\n"
            f"{markdown_table(list(map(_model_row, chosen)))}\n"
        )
    return "\n".join(tables)


def merge_models(before: str, after: str) -> str:
    """The tables of :func:`format_models` ``after``, then those ``before`` of other processors or instruction sets."""

    def sections(text: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for section in filter(None, re.split("^(?=`)", text, flags=re.MULTILINE)):
            processor = re.match("`.*?` on (.*?);", section)
            found.setdefault(processor[1] if processor else section, []).append(section.strip())
        return found

    old, new = sections(before), sections(after)
    kept = [section for processor, of_one in old.items() if processor not in new for section in of_one]
    return (
        "\n\n".join([section for of_one in new.values() for section in of_one] + [s for s in kept if s])
        + "\n"
    )


def _model_row(report: dict[str, Any]) -> dict[str, str]:
    row = {"": report["name"], "M parameters": f"{report['parameters'] / 1e6:.1f}"}
    if not report["passed"]:
        differences = (f"{name} {_difference(found)}" for name, found in report["backends"].items())
        return row | {"seconds": f"FAILED: {', '.join(differences)}"}
    ours = {name: found for name, found in report["backends"].items() if not name.startswith("stock")}
    stock = min((found for name, found in report["backends"].items() if name not in ours), key=_seconds)
    columns = [found["stages_seconds"] for found in (stock, *ours.values())]
    stages = (f"{stage} {' / '.join(f'{found[stage]:.2f}' for found in columns)}" for stage in columns[0])
    return {
        **row,
        "audio s": f"{report['audio_seconds']:.0f}",
        **{name: f"{found['speed_up']:.2f}" for name, found in ours.items()},
        "memory": " / ".join(f"{found['memory_of_stock']:.2f}" for found in ours.values()),
        "seconds": ", ".join(stages),
    }


def _seconds(found: dict[str, Any]) -> float:
    return found["seconds"]


def milliseconds(seconds: Sequence[float]) -> str:
    """Times in a cell: their median (least..most)."""
    values = [1000 * value for value in (median(seconds), min(seconds), max(seconds))]
    middle, low, high = (f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return f"{middle} ({low}..{high})"


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """One line a row, a column for every key; a cell that a row lacks is a dash."""
    # The fullest row has the order of the columns.
    headers = list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row))
    cells = [headers, *([row.get(header, "-") for header in headers] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def section(title: str, body: str) -> str:
    return f"### {title}\n\n{body}\n"


def write_sections(path: Path, titles: Sequence[str], sections: dict[str, str]) -> None:
    """Put these into the file, in place of those with the same titles; the others stay. ``titles``: their order."""
    path.parent.mkdir(exist_ok=True)
    before = path.read_text(encoding="utf-8").split("### ")[1:] if path.exists() else []
    kept = {title: body.strip("\n") for title, _, body in (text.partition("\n") for text in before)}
    found = {**kept, **sections}
    text = "\n".join(section(title, found[title]) for title in titles if title in found)
    path.write_text(text, encoding="utf-8")


def plot_reports(reports: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel per job that passed: seconds of each stage per second of audio, stacked, by backend."""
    from matplotlib.figure import Figure

    passed = [report for report in reports if report["passed"]]
    figure = Figure(figsize=(8, 1 + 2 * max(1, len(passed))), layout="constrained")
    for i, report in enumerate(passed):
        axes = figure.add_subplot(len(passed), 1, i + 1)
        names = list(report["backends"])
        left = [0.0] * len(names)
        for stage in report["backends"][names[0]]["stages_seconds"]:
            values = [
                report["backends"][name]["stages_seconds"][stage] / report["audio_seconds"] for name in names
            ]
            axes.barh(names, values, left=left, label=stage)
            left = [a + b for a, b in zip(left, values)]
        axes.invert_yaxis()
        axes.set_title(f"{report['name']} ({report['weights']}), {report['device']}")
        axes.set_xlabel("RTF: processing seconds per second of audio")
    if passed:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=150)


def plot_growth(rows: Sequence[dict[str, dict[str, list[tuple[int, float]]]]], path: Path) -> None:
    """Rows of log-log panels, one for each x axis: milliseconds over it by backend, as points."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, ScalarFormatter

    columns = max(map(len, rows))
    figure = Figure(figsize=(4 * columns, 4 * len(rows)), layout="constrained")
    all_axes = figure.subplots(len(rows), columns, squeeze=False)
    for axes in all_axes.flat:
        axes.set_axis_off()
    panels = [(axes, *panel) for line, row in zip(all_axes, rows) for axes, panel in zip(line, row.items())]
    for axes, label, lines in panels:
        axes.set_axis_on()
        for name, points in lines.items():
            axes.loglog(*zip(*points), marker="o", label=name)
        axes.set_xticks([x for x, _ in points])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    for axes in all_axes[:, 0]:
        axes.set_ylabel("milliseconds")
    handles = {
        label: handle
        for axes in all_axes.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=150)
