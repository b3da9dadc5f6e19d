"""Convolutions with hooks or a forward of their own are called, not read: weight_norm and pruning work by hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, weight_norm

from asrkern.models import LAS
from asrkern.nn import Lookahead, MaskConv
from asrkern.nn.mask_conv_stream import MaskConvStream
from tests.compare import assert_close, assert_same_bits
from tests.models.las_twins import randomise


def listener(preset: str, **options: Any) -> tuple[nn.Module, list[nn.Module], Callable[[nn.Module], Tensor]]:
    tokens = {"num_tokens": 13, "pad_token": 0, "sos_token": 1, "eos_token": 2}
    sizes = {"n_features": 8, "hidden_size": 6, "speller_size": 12, "dropout": 0.0, **tokens, **options}
    model = LAS.preset(preset, **sizes)
    randomise(model)
    x, lengths = torch.randn(3, 1, 8, 40), torch.tensor([40, 23, 31])
    convolutions = [m for m in model.listener.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    return model.listener, convolutions, lambda m: m(x, lengths)[0]


def lookahead() -> tuple[nn.Module, list[nn.Module], Callable[[nn.Module], Tensor]]:
    layer = Lookahead(7, 5)
    x, lengths = torch.randn(11, 3, 7), torch.tensor([11, 4, 9])
    return layer, [layer.conv], lambda m: m(x, lengths)


FORMS: dict[str, Callable[[], tuple[nn.Module, list[nn.Module], Callable[[nn.Module], Tensor]]]] = {
    "hw4": lambda: listener("hw4", conv_channels=(6, 5), rnn_layers=(1,), encoder_blocks=0, embedding_size=9),
    "hw4 mobile": lambda: listener(
        "hw4_mobile", conv_channels=(4, 6, 6), rnn_layers=(1,), encoder_blocks=0, embedding_size=9
    ),
    "kospeech": lambda: listener("kospeech", conv_channels=(3, 3, 4, 4, 4), rnn_layers=(1, 1)),
    "lookahead": lookahead,
}


def doubled(convolution: nn.Module) -> None:
    convolution.register_forward_hook(lambda _, args, output: 2 * output)


def with_another_magnitude(convolution: nn.Module) -> None:
    weight_norm(convolution)
    convolution.weight_g.data.mul_(2)


def with_forward_of_its_own(convolution: nn.Module) -> None:
    forward = convolution.forward
    convolution.forward = lambda x: 2 * forward(x)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("alter", [doubled, with_another_magnitude, with_forward_of_its_own])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_altered_convolutions_are_called(
    form: str, training: bool, alter: Callable[[nn.Module], None]
) -> None:
    module, convolutions, run = FORMS[form]()
    module.train(training)
    twin = copy.deepcopy(module)
    # Where a convolution has no bias, twice its weights are twice its output.
    for convolution in twin.modules():
        if isinstance(convolution, nn.Conv1d | nn.Conv2d):
            convolution.weight.data.mul_(2)
            if convolution.bias is not None and alter is not with_another_magnitude:
                convolution.bias.data.mul_(2)
    before = run(copy.deepcopy(module)).detach()
    for convolution in convolutions:
        alter(convolution)
    expected = run(twin).detach()
    assert_close(run(module).detach(), expected, 1e-5)
    assert training or not torch.allclose(before, expected, atol=1e-4)


def test_edits_of_a_pruned_weight_are_seen() -> None:
    module, convolutions, run = FORMS["hw4"]()
    module.eval()
    for convolution in convolutions:
        prune.random_unstructured(convolution, "weight", 0.3)
    before = run(module)
    convolutions[0].weight_orig.data.zero_()
    assert not torch.equal(run(module), before)


def test_replaced_and_added_layers_are_called() -> None:
    module, _, _ = FORMS["kospeech"]()
    module.eval()
    module.conv[1] = nn.GELU()
    module.conv[4] = nn.PReLU(3, init=0.3)
    module.conv.insert(5, nn.BatchNorm2d(3).eval())
    module.conv[5].running_mean.normal_()
    received: list[Tensor] = []
    recurrent = module.get_submodule(module.recurrent_names[0])
    recurrent.register_forward_pre_hook(lambda _, args: received.append(args[0]))
    x = torch.randn(1, 1, 8, 40)
    with torch.inference_mode():
        module(x, torch.tensor([40]))
        # Without padding the layers one after another; they take [N, C, T, F].
        expected = module.conv(x.transpose(2, 3)).transpose(2, 3).flatten(1, 2).transpose(1, 2)
    assert_close(received[0], expected, 1e-5)


def test_a_stream_goes_by_the_stack_as_it_is() -> None:
    torch.manual_seed(0)
    conv = MaskConv(nn.Sequential(nn.Conv2d(1, 4, (3, 5), padding=(1, 2)), nn.Hardtanh(0, 20))).eval()
    stream = MaskConvStream(conv)
    conv.seq_module[0] = nn.Conv2d(1, 4, (3, 5), padding=(1, 2))
    conv.seq_module[1].max_val = 0.25
    x = torch.randn(1, 1, 9, 70)
    with torch.inference_mode():
        expected = conv(x, torch.tensor([70]))[0]
        parts, state = [], stream.start()
        for chunk in x.split(13, -1):
            part, state = stream.step(state, chunk)
            parts.append(part)
        parts.append(stream.step(state, x[..., :0], last=True)[0])
    assert_same_bits(torch.cat(parts, -1), expected)
    prune.random_unstructured(conv.seq_module[0], "weight", 0.3)
    with pytest.raises(ValueError, match="conv: expected plain convolutions, received Conv2d"):
        stream.step(state, x)
