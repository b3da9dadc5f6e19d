"""benchmarks/results/gpu.json as Markdown. No torch."""

from __future__ import annotations

import re
from typing import Any

from benchmarks._report import markdown_table

#: What is wrong with a process that was not begun.
NO_TIME = "no time left"
_ABOUT = ("device", "driver", "cuda", "torch", "triton", "nvcc", "python")


def about_line(about: dict[str, Any]) -> str:
    """Device and versions."""
    return ", ".join(
        f"{about[name]}" if name == "device" else f"{name} {about[name]}" for name in _ABOUT if name in about
    )


def kernel_table(record: dict[str, Any], checked: dict[str, dict], names: list[str]) -> str:
    """One line a kernel: "verified" if its record covers the present sources.

    Args:
        record: gpu.json.
        checked: the kernels that the record lets run by default (``_gpu_kernels.checked_kernels``).
        names: all kernels.
    """
    return markdown_table([_kernel_row(name, record["kernels"].get(name), name in checked) for name in names])


def _kernel_row(name: str, check: dict[str, Any] | None, verified: bool) -> dict[str, str]:
    row = {"kernel": f"`{name}`", "state": "verified" if verified else "**unverified**"}
    if check is None:
        return row | {"why": "never ran on a GPU"}
    row["on"] = f"{check['device']}, {check['date']}"
    row["small cases"] = counts_text(check.get("small", {}))
    row["tests"] = counts_text(check["tests"])
    row["compute-sanitizer"] = (
        ", ".join(f"{tool}: {found}" for tool, found in check["sanitizer"].items()) or "not run"
    )
    if not verified:
        row["why"] = "changed since" if check["passed"] else _why(check)
    return row


def _why(check: dict[str, Any]) -> str:
    """Why a kernel has not passed."""
    problems = [check.get(stage, {}).get("problem", NO_TIME) for stage in ("small", "tests")]
    wrong = any(re.match(r"[1-9]", found) for found in check["sanitizer"].values())
    return "its check failed" if wrong or set(problems) != {NO_TIME} else "its check was cut short"


def counts_text(counts: dict[str, Any]) -> str:
    """Of cases or tests, how many passed, and the problem."""
    text = ", ".join(f"{counts[key]} {key}" for key in ("passed", "failed", "skipped") if counts.get(key))
    return text + (f" ({counts['problem']})" if "problem" in counts else "") or "none ran"


def markdown(record: dict[str, Any], checked: dict[str, dict], names: list[str]) -> str:
    """The whole record."""
    parts = [
        "# GPU kernels: checks and times",
        f"{about_line(record['about'])}; {record['about'].get('date', '')}.",
    ]
    parts += [kernel_table(record, checked, names)]
    if build := record.get("build"):
        outcome = "built" if build["passed"] else "FAILED to build"
        parts += [f"{outcome} in {build['seconds']:.0f} s. Registers of each kernel:"]
        parts += ["```\n" + "\n".join(build.get("kernels", ["not compiled in this run"])) + "\n```"]
    if others := record.get("other_tests"):
        parts += [f"Tests of layers on the GPU, about no kernel of their own: {counts_text(others)}."]
    if found := record.get("ceilings"):
        parts += [
            f"In the same run: copying {found['copy_gb_s']:.0f} GB/s, products of matrices "
            f"{found['bf16_tflop_s']:.0f} (bf16), {found['tf32_tflop_s']:.0f} (TF32), "
            f"{found['fp32_tflop_s']:.0f} (fp32) TFLOP/s."
        ]
    parts += [
        "Medians in milliseconds. A row counts only if asrkern's kernels ran (column `kernel`, from the profiler) and the "
        "outputs are as close to float64 as the arithmetic allows. `padded` and `packed` are torch.nn.GRU on cuDNN in the "
        "same dtype; packed sequences are packed beforehand, and are launched plainly, as torch reads their lengths on the "
        "host; all else is replayed as CUDA graphs where that is faster. In equal arithmetic: fp32 without TF32."
    ]
    rows = record.get("rows", [])
    for title in dict.fromkeys(row["title"] for row in rows):
        parts += [f"## {title}", markdown_table([timing_row(row) for row in rows if row["title"] == title])]
    return "\n\n".join(parts) + "\n"


def summary(record: dict[str, Any], checked: dict[str, dict], names: list[str], most: int) -> str:
    """What the check found, in at most so many characters: kernels, then what went wrong, then times, a line a row.

    Args:
        record, checked, names: as :func:`kernel_table`.
        most: characters. What goes wrong comes first, and at least half of it is left for that.
    """
    kernels = kernel_table(record, checked, names)
    trouble = [f"build: {line[:160]}" for line in record.get("build", {}).get("failures", [])]
    for name in names:
        for stage in ("small", "tests"):
            if failures := record["kernels"].get(name, {}).get(stage, {}).get("failures"):
                trouble += [f"{name}, {stage}:", *(f"  {line[:160]}" for line in failures)]
    times = "\n".join(_timing_line(row) for row in record.get("rows", []))
    first = _shortened("\n".join([kernels, *trouble]), most - 1 - min(len(times), most // 2))
    return first + "\n" + _shortened(times, most - len(first) - 1)


def _shortened(text: str, most: int) -> str:
    """The text's whole lines, as many of the first as fit."""
    if len(text) <= most:
        return text
    end = "\n… the rest is in gpu.json"
    return text[: most - len(end)].rpartition("\n")[0] + end


def _timing_line(row: dict[str, Any]) -> str:
    name = f"{row['group']} {row['row']} {row['arithmetic']}: "
    if "times" not in row:
        return name + timing_row(row)["kernel"][:100]
    medians = {name: timing["median"] for name, timing in row["times"].items()}
    text = ", ".join(f"{backend} {milliseconds(median)}" for backend, median in medians.items())
    return name + text + (" FALLBACK" if row["fallback"] else "")


def timing_row(row: dict[str, Any]) -> dict[str, str]:
    """The cells of one row of gpu_bench.py by the header of their columns."""
    cells = {"": row["row"], "arithmetic": row["arithmetic"]}
    if "failed" in row:
        return cells | {"kernel": f"no figure: {row['failed']}"}
    if "times" not in row:
        return cells | {"kernel": f"WRONG by {row['errors']['asrkern']:.0e}, allowed {row['tolerance']:.0e}"}
    cells["kernel"] = ", ".join(row["kernels"]) or "torch's"
    if row["fallback"]:
        cells["kernel"] += " (FALLBACK, does not count)"
    for name, timing in row["times"].items():
        cells[f"{name} ms"] = milliseconds(timing["median"])
    for name in row["wrong"]:
        cells[f"{name} ms"] = f"wrong by {row['errors'][name]:.0e}"
    if "floor_ms" in row:
        cells["floor ms"] = milliseconds(row["floor_ms"])
    if "rtfx" in row:
        cells["RTFx"] = f"{row['rtfx']:,.0f}"
    for kind, goal in row["goals"].items():
        header = {"floor": "x floor", "rtfx": "RTFx goal"}.get(kind, kind)
        cells[header] = "-" if goal["reached"] is None else goal_cell(kind, row, **goal)
    cells["error"] = f"{row['errors']['asrkern']:.0e}"
    return cells


def met(kind: str, goal: float, reached: float) -> bool:
    return reached <= goal if kind == "floor" else reached >= goal


def goal_cell(kind: str, row: dict[str, Any], goal: float, reached: float) -> str:
    """What was reached, with the goal where it was missed; met in bold."""
    text = f"{reached:,.0f}" if kind == "rtfx" else f"{reached:.2f}"
    if row["fallback"]:
        return f"({text})"
    return f"**{text}**" if met(kind, goal, reached) else f"{text} (goal {goal:,.4g})"


def milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
