"""SyncBatchNorm and DistributedDataParallel: two ranks give what one process gives on both ranks' rows."""

from __future__ import annotations

import copy

import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from asrkern.nn import (
    GRU,
    LSTM,
    BatchRNN,
    FusedSequential,
    LightGRU,
    Lookahead,
    MaskConv,
    MaskedBatchNorm1d,
    PyramidalRNN,
    SequenceWise,
    convert,
)
from tests.compare import relative_error

LENGTHS = torch.tensor([9, 4, 7, 1, 3])
ROWS = (slice(0, 2), slice(2, 5))  # of the ranks: not as many


def stacks() -> dict[str, tuple[nn.Module, torch.Tensor, int]]:
    """Name → a module, its input, and the dimension of the input's rows."""
    torch.manual_seed(3)
    conv = nn.Sequential(
        nn.Conv2d(1, 3, (3, 3), padding=(1, 1), bias=False),
        nn.BatchNorm2d(3),
        nn.Hardtanh(0, 0.7),
        nn.BatchNorm2d(3),
    )
    rows = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    plain = nn.Sequential(
        nn.Conv1d(2, 6, 3, bias=False), nn.BatchNorm1d(6, affine=False, momentum=None), nn.ReLU6()
    )
    return {
        "valid": (MaskConv(conv), torch.randn(5, 1, 7, 9) + 1, 0),
        "padded": (MaskConv(copy.deepcopy(conv), stats="padded"), torch.randn(5, 1, 7, 9) + 1, 0),
        "rows": (SequenceWise(rows), torch.randn(9, 5, 6) - 1, 1),
        "plain": (convert(plain).model, torch.randn(5, 2, 9) * 3, 0),
    }


def run(
    name: str, module: nn.Module, input: torch.Tensor, dim: int, lengths: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Output, gradients and buffers after a step and another in eval."""
    input = input.clone().requires_grad_()
    arguments = (input,) if name == "plain" else (input, lengths)
    output = module(*arguments)
    output = output[0] if isinstance(output, tuple) else output
    weights = (
        torch.arange(output.movedim(dim, 0)[0].numel(), dtype=output.dtype)
        .cos()
        .view(output.movedim(dim, 0)[0].shape)
    )
    (output.movedim(dim, 0) * weights).square().sum().backward()
    with torch.no_grad():
        after = module.eval()(*arguments)
    return {
        "output": output.detach().movedim(dim, 0),
        "in eval": (after[0] if isinstance(after, tuple) else after).movedim(dim, 0),
        "grad": input.grad.movedim(dim, 0),
        **{f"grad of {key}": p.grad for key, p in module.named_parameters()},
        **dict(module.named_buffers()),
    }


class Recogniser(nn.Module):
    """Convolutions, recurrent layers and a classifier; statistics of batches would be each rank's own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = MaskConv(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()))
        self.rnn = GRU(14, 5, bidirectional=True)
        self.batch_rnn = BatchRNN(10, 6, LSTM)
        self.light = LightGRU(6, 5)
        self.pyramid = PyramidalRNN(5, 3)
        self.norm = MaskedBatchNorm1d(6, layout="NTC")
        self.fc = SequenceWise(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4)))
        self.lookahead = Lookahead(4, 2)
        self.input = torch.randn(5, 1, 7, 9)
        self.eval()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        x, lengths = self.conv(x, input_lengths=lengths)
        x, _ = self.rnn(x.flatten(1, 2).permute(2, 0, 1), lengths=lengths)
        x, _ = self.light(self.batch_rnn(x, lengths)[0], lengths=lengths)
        x, lengths = self.pyramid(x.transpose(0, 1), lengths)
        return self.lookahead(self.fc(self.norm(x, lengths).transpose(0, 1), lengths), lengths)


def gradients(model: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the sum of squares, by parameter."""
    model(x, lengths).square().sum().backward()
    return {key.removeprefix("module."): p.grad for key, p in model.named_parameters()}


def rank_main(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for name, (module, input, dim) in stacks().items():
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        mine = input.movedim(dim, 0)[ROWS[rank]].movedim(0, dim)
        results[name] = run(name, module, mine, dim, LENGTHS[ROWS[rank]])
    model = Recogniser()
    x, lengths = model.input[ROWS[rank]], LENGTHS[ROWS[rank]]
    model = nn.parallel.DistributedDataParallel(model)
    results["parallel"] = gradients(model, x, lengths)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one_process(tmp_path):
    torch.multiprocessing.spawn(rank_main, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, (module, input, dim) in stacks().items():
        expected = run(name, module, input, dim, LENGTHS)
        for key, value in expected.items():
            a, b = first[name][key], second[name][key]
            if key in ("output", "in eval", "grad"):
                got = torch.cat([a, b])
            elif key.startswith("grad of"):
                got = a + b
            else:  # statistics, the same on both
                assert torch.equal(a, b), (name, key)
                got = a
            assert relative_error(got, value) < 1e-5, (name, key, got, value)
    model = Recogniser()
    for key, value in gradients(model, model.input, LENGTHS).items():
        assert torch.equal(first["parallel"][key], second["parallel"][key])
        # DistributedDataParallel takes the mean over the ranks.
        assert relative_error(2 * first["parallel"][key], value) < 1e-4, (key, value)


def test_stays_fused_and_clamped_in_eval_without_a_process_group():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(
        convert(nn.Sequential(nn.BatchNorm1d(6), nn.Hardtanh(0, 0.1))).model
    )
    assert type(model) is FusedSequential and type(model[0]) is nn.SyncBatchNorm
    for training in (True, False):
        y = model.train(training)(torch.randn(4, 6, 9))
        assert y.min() == 0 and y.max() == y.new_tensor(0.1)
