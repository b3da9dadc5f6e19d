"""``asrkern models``: every model's name and what it costs."""

from __future__ import annotations


def models() -> None:
    """Names, parameters and operations per second of audio of all models.

    Example: asrkern models
    """
    # Only here: it takes as long to import as torch.
    from asrkern.models import list as names
    from asrkern.models.cost import TOKENS_PER_SECOND, cost

    width = max(map(len, names()))
    print(f"{'model':<{width}}{'parameters':>12}{'GFLOP per s of audio':>22}{'utterance':>11}")
    for name in names():
        parameters, flops, seconds = cost(name)
        print(f"{name:<{width}}{parameters / 1e6:>10.1f} M{flops / 1e9:>22.2f}{seconds:>9.0f} s")
    print(
        "Inference with one utterance of that length; matrix products and convolutions, a multiply-add counted "
        f"as 2. Spellers (las) write {TOKENS_PER_SECOND} tokens for each second."
    )
