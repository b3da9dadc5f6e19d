"""A DeepSpeech2 of asrkern as tests/models/stock_deepspeech2.py has it, with the same weights."""

from __future__ import annotations

from asrkern.models import DeepSpeech2
from tests.models import stock_deepspeech2 as stock


def stock_deepspeech2(model: DeepSpeech2) -> stock.StockDeepSpeech2:
    """The same model in plain torch, sharing the weights, in eval mode."""
    config = model.config
    between = config.batch_norm_between and config.num_layers > 1
    name, layout = next(
        (name, layout)
        for name, layout in stock.LAYOUTS.items()
        if (layout.conv_padding, layout.bias) == (config.conv_padding, config.bias)
        and (layout.batch_norm and config.num_layers > 1) == between
    )
    windowed = layout.lookahead == "weight"  # counts the frames after the present one
    twin = stock.StockDeepSpeech2(
        name,
        labels=config.labels,
        n_freq=config.n_freq,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        rnn_type=config.rnn_type,
        bidirectional=config.bidirectional,
        lookahead_context=(config.lookahead_context or 1) - windowed,
    )
    weights = model.state_dict()
    if not layout.wrapped_conv:
        weights = {key.replace("conv.seq_module.", "conv."): value for key, value in weights.items()}
    if windowed and "lookahead.0.conv.weight" in weights:
        weights["lookahead.0.weight"] = weights.pop("lookahead.0.conv.weight").squeeze(1)
    if config.lookahead_context is None:
        twin.lookahead = None
    twin.load_state_dict(weights, assign=True)
    return twin.eval()
