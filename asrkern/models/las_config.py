"""What describes a Listen-Attend-Spell model, and the named forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asrkern.models._checks import check_choices, check_list, check_probability, check_sizes

# HW4P2's tokens, by their index.
HW4_LABELS = ("<pad>", "<sos>", "<eos>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")


@dataclass(frozen=True)
class LASConfig:
    """A Listen-Attend-Spell model; the defaults are HW4P2's ("hw4").

    Args:
        num_tokens: output classes, the three special ones included.
        pad_token, sos_token, eos_token: padding, start and end of a sequence.
        n_features: features per frame (MFCC or mel bands).
        listener: what comes before the recurrent layers: "conv1d" (convolutions over time, kernel 3), "mobile"
            (inverted residuals of MobileNetV2 over time, which leave a quarter of the frames) or "vgg" (five
            convolutions and two max-pools over frequency and time, which leave a quarter of both).
        conv_channels: output channels of the convolutions: of each ("conv1d", "vgg"), or of the first and then of
            each pair of inverted residuals ("mobile").
        rnn_type: of the listener, "lstm" or "gru".
        hidden_size: of the listener's recurrent layers, per direction.
        rnn_layers: layers of each recurrent block. With "vgg" the first block is on single frames.
        use_bidirectional: both directions in the listener.
        use_pyramidal: recurrent blocks (with "vgg" all but the first) take two frames at a time. Without it
            "vgg" has one block of all layers.
        remainder: what the pyramid does with a last frame that has no partner: "pad" it with zeros (KoSpeech) or
            "drop" it (HW4P2); see :func:`asrkern.nn.stack_frames`.
        reverse_input: each utterance is read backwards, from its own last frame.
        encoder_blocks, encoder_heads: self-attention blocks after the recurrent ones ("conv1d", "mobile"), with
            sinusoidal positions, and their heads.
        speller: "lstm_cells", whose input is embedding and context, or "gru", whose output is the query.
        speller_size: width of the speller; None for that of the listener's output.
        speller_layers: recurrent layers in it.
        embedding_size: of tokens; None for speller_size.
        use_attention: without it the speller sees the mean of the listener's frames: as its context at every
            step ("lstm_cells"), or as its initial state ("gru").
        attention: scores: "dot", "additive", "location" or "multi_head"; see :mod:`asrkern.nn`.
        attention_size: features of its projections (other than "dot"); None for speller_size.
        attention_heads: of "multi_head".
        attention_smoothing: of "location".
        tied_output: the last weight is that of the embedding.
        dropout: probability, between recurrent layers, after recurrent blocks and in the speller.
        locked_dropout: one mask per utterance, where dropout is not inside a recurrent layer.
        label_smoothing: share of the target probability that is spread evenly over all tokens.
        teacher_forcing_per: what a draw decides on: each "step" (HW4P2) or the whole "batch" (KoSpeech).
        predicts_sos: the first token to be predicted is sos_token, as in HW4P2, whose targets begin with it.
        stats: frames that count for BatchNorm in training, "valid" or "padded".

    Raises:
        ValueError: a value is out of range, or values do not fit together; the message names the field.
    """

    num_tokens: int = len(HW4_LABELS)
    pad_token: int = 0
    sos_token: int = 1
    eos_token: int = 2
    n_features: int = 28
    listener: str = "conv1d"
    conv_channels: tuple[int, ...] = (256, 512, 512)
    rnn_type: str = "lstm"
    hidden_size: int = 128
    rnn_layers: tuple[int, ...] = (3, 3, 3)
    use_bidirectional: bool = True
    use_pyramidal: bool = True
    remainder: str = "drop"
    reverse_input: bool = False
    encoder_blocks: int = 2
    encoder_heads: int = 2
    speller: str = "lstm_cells"
    # The three sizes are int, or None until __post_init__.
    speller_size: Any = 512
    speller_layers: int = 3
    embedding_size: Any = 256
    use_attention: bool = True
    attention: str = "multi_head"
    attention_size: Any = 256
    attention_heads: int = 1
    attention_smoothing: bool = True
    tied_output: bool = True
    dropout: float = 0.3
    locked_dropout: bool = True
    label_smoothing: float = 0.0
    teacher_forcing_per: str = "step"
    predicts_sos: bool = True
    stats: str = "valid"

    def __post_init__(self) -> None:
        for name in ("conv_channels", "rnn_layers"):
            check_list(name, getattr(self, name))
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_values()
        for name, default in (("speller_size", "listener_size"), ("embedding_size", "speller_size")):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self, default))
        if self.attention_size is None:
            object.__setattr__(self, "attention_size", self.speller_size)
        self._check_fit()

    @property
    def listener_size(self) -> int:
        """Features per frame of the listener's output."""
        return self.hidden_size * (2 if self.use_bidirectional else 1)

    def _check_values(self) -> None:
        check_choices(**{name: (getattr(self, name), choices) for name, choices in _CHOICES.items()})
        check_sizes(**{name: getattr(self, name) for name in _SIZES if getattr(self, name) is not None})
        for name in ("conv_channels", "rnn_layers"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, received none")
            for value in getattr(self, name):
                check_sizes(**{name: value})
        if not isinstance(self.encoder_blocks, int) or self.encoder_blocks < 0:
            raise ValueError(f"encoder_blocks: expected 0 or more, received {self.encoder_blocks!r}")
        for name in ("dropout", "label_smoothing"):
            check_probability(name, getattr(self, name))
        special = [self.pad_token, self.sos_token, self.eos_token]
        for index, name in enumerate(("pad_token", "sos_token", "eos_token")):
            value = special[index]
            if type(value) is not int or not 0 <= value < self.num_tokens or value in special[:index]:
                raise ValueError(
                    f"{name}: expected an index below {self.num_tokens} (num_tokens) of its own, "
                    f"received {value!r}"
                )

    def _check_fit(self) -> None:
        if self.listener == "vgg" and len(self.conv_channels) != 5:
            raise ValueError(f"conv_channels: expected 5 for 'vgg', received {self.conv_channels}")
        if self.listener == "vgg" and self.n_features < 4:
            raise ValueError(f"n_features: expected at least 4 for 'vgg', received {self.n_features}")
        if self.listener == "vgg" and self.encoder_blocks:
            raise ValueError(f"encoder_blocks: expected 0 for 'vgg', received {self.encoder_blocks}")
        if self.encoder_blocks and (self.listener_size % self.encoder_heads or self.listener_size % 2):
            raise ValueError(
                f"encoder_heads: expected a divisor of {self.listener_size}, the listener's (even) size, "
                f"received {self.encoder_heads}"
            )
        if (
            self.use_attention
            and self.attention == "multi_head"
            and self.attention_size % self.attention_heads
        ):
            raise ValueError(
                f"attention_heads: expected a divisor of {self.attention_size} (attention_size), "
                f"received {self.attention_heads}"
            )
        compares = self.attention == "dot" if self.use_attention else self.speller == "gru"
        if compares and self.speller_size != self.listener_size:
            raise ValueError(
                f"speller_size: expected {self.listener_size}, the listener's size, "
                f"for {'dot' if self.use_attention else 'no'} attention, received {self.speller_size}"
            )
        if self.speller == "gru" and self.tied_output and self.embedding_size != self.gru_output_size:
            raise ValueError(
                f"tied_output: expected False, since the output layer takes {self.gru_output_size} features and "
                f"the embedding has {self.embedding_size}"
            )

    @property
    def context_size(self) -> int:
        """Features of the context, which are those of projected values or of the listener's output."""
        projected = self.use_attention and self.attention == "multi_head"
        return self.attention_size if projected else self.listener_size

    @property
    def gru_output_size(self) -> int:
        """Features that the "gru" speller's output layer takes, those of the context or of its combination with the query."""
        context_alone = self.use_attention and self.attention in ("additive", "location")
        return self.listener_size if context_alone else self.speller_size


_CHOICES = {
    "listener": ("conv1d", "mobile", "vgg"),
    "rnn_type": ("lstm", "gru"),
    "remainder": ("pad", "drop"),
    "speller": ("lstm_cells", "gru"),
    "attention": ("dot", "additive", "location", "multi_head"),
    "teacher_forcing_per": ("step", "batch"),
    "stats": ("valid", "padded"),
    **{
        name: (True, False)
        for name in (
            "use_bidirectional",
            "use_pyramidal",
            "reverse_input",
            "use_attention",
            "attention_smoothing",
            "tied_output",
            "locked_dropout",
            "predicts_sos",
        )
    },
}

# Positive integers.
_SIZES = (
    "num_tokens",
    "n_features",
    "hidden_size",
    "encoder_heads",
    "speller_size",
    "speller_layers",
    "embedding_size",
    "attention_size",
    "attention_heads",
)

# What differs from the defaults; a width left at None follows from the options given beside.
PRESETS: dict[str, dict[str, Any]] = {
    "hw4": {},
    # Of this first variant only the outline is known: a MobileNetV2-style embedding, 3 BiLSTMs, 4-head attention.
    "hw4_mobile": {
        "listener": "mobile",
        "conv_channels": (64, 128, 256),
        "rnn_layers": (1, 1, 1),
        "use_pyramidal": False,
        "encoder_blocks": 0,
        "attention_heads": 4,
    },
    "kospeech": {
        "num_tokens": 2040,
        "pad_token": 2039,
        "sos_token": 2037,
        "eos_token": 2038,
        "n_features": 128,
        "listener": "vgg",
        "conv_channels": (64, 64, 128, 128, 128),
        "rnn_type": "gru",
        "hidden_size": 256,
        "rnn_layers": (2, 2, 1),
        "remainder": "pad",
        "encoder_blocks": 0,
        "speller": "gru",
        "speller_size": None,
        "embedding_size": None,
        "attention": "dot",
        "attention_size": None,
        "tied_output": False,
        "dropout": 0.5,
        "locked_dropout": False,
        "label_smoothing": 0.1,
        "teacher_forcing_per": "batch",
        "predicts_sos": False,
    },
}
