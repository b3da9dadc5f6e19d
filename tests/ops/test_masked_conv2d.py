"""masked_conv2d against the reference, with gradients; rows that do not depend on others."""

import pytest
import torch

from asrkern import ops, reference
from tests.compare import assert_close, assert_same_bits

HARDTANH = (0.0, 20.0)


def make(rows=3, in_channels=2, bins=20, frames=31, out_channels=5, kernel=(7, 5), dtype=torch.float32):
    """input, weight, bias, scale, shift; all want gradients."""
    shapes = [(rows, in_channels, bins, frames), (out_channels, in_channels, *kernel), *[(out_channels,)] * 3]
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


@pytest.mark.parametrize(
    "stride, padding", [((1, 1), (0, 0)), ((2, 2), (3, 2)), ((2, 1), (9, 7)), ((3, 4), (0, 1))]
)
@pytest.mark.parametrize("lengths", [None, [31, 0, 8], [1, 31, 5]])
@pytest.mark.parametrize("out_channels", [1, 5, 32, 40])
def test_equals_reference(stride, padding, lengths, out_channels):
    tensors = make(out_channels=out_channels)
    options = dict(
        lengths=None if lengths is None else torch.tensor(lengths),
        stride=stride,
        padding=padding,
        activation=HARDTANH,
    )
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    output, expected = ops.masked_conv2d(*tensors, **options), reference.masked_conv2d(*doubles, **options)
    assert_close(output, expected, 1e-5)
    seed = torch.randn_like(output)
    grads = torch.autograd.grad(output, tensors, seed)
    for index, (grad, wanted) in enumerate(zip(grads, torch.autograd.grad(expected, doubles, seed.double()))):
        assert_close(grad, wanted, 1e-4, f"gradient {index}")


@pytest.mark.parametrize("shape", [(1, 1, 161, 99, 32, (41, 11)), (2, 32, 61, 40, 32, (21, 11))])
def test_deepspeech2_shapes(shape):
    tensors = [t.detach() for t in make(*shape)]
    options = dict(stride=(2, 2 if shape[1] == 1 else 1), padding=(shape[5][0] // 2, 5), activation=None)
    expected = reference.masked_conv2d(*(t.double() for t in tensors), **options)
    assert_close(ops.masked_conv2d(*tensors, **options), expected, 1e-5)


# in_channels, bins, frames, out_channels, kernel_bins, stride and padding along frequency, padding along time: kernels of
# three frames with channels enough for Winograd's transforms.
WINOGRAD = [
    (16, 3, 1, 16, 1, 1, 0, 1),
    (17, 5, 31, 40, 1, 1, 0, 1),
    (40, 9, 200, 33, 3, 1, 1, 1),
    (20, 7, 331, 64, 3, 2, 0, 0),
    (16, 2, 50, 16, 3, 1, 4, 7),
    (256, 2, 290, 64, 1, 1, 0, 1),
]


@pytest.mark.parametrize(
    "channels, bins, frames, out_channels", [(16, 1, 1, 16), (37, 3, 50, 33), (256, 1, 97, 64)]
)
def test_kernels_of_one_value(channels, bins, frames, out_channels):
    tensors = [t.detach() for t in make(3, channels, bins, frames, out_channels, (1, 1))]
    # More frames of output than of input, which are those of zeros.
    options = dict(
        lengths=torch.tensor([frames, 0, frames // 2]),
        output_lengths=torch.tensor([frames, 1, frames]),
        activation=HARDTANH,
    )
    expected = reference.masked_conv2d(*(t.double() for t in tensors), **options)
    assert_close(ops.masked_conv2d(*tensors, **options), expected, 1e-5)


# in_channels, bins, frames, out_channels, kernel, stride, padding: strided layers of many channels and kernels of two or
# four frames, which are convolved by blocks of frames and of input channels.
BLOCKED = [
    (16, 3, 1, 16, (1, 1), (1, 2), (0, 0)),
    (33, 9, 207, 40, (3, 3), (2, 2), (1, 1)),
    (130, 2, 407, 33, (2, 4), (1, 2), (0, 3)),
    (40, 7, 90, 17, (3, 2), (2, 1), (2, 1)),
    (16, 18, 31, 16, (18, 16), (1, 1), (0, 9)),
    (17, 20, 50, 16, (18, 17), (1, 1), (0, 0)),
    (70, 5, 800, 16, (2, 3), (1, 5), (4, 7)),
    (16, 1, 64, 96, (1, 2), (1, 3), (0, 40)),
]


@pytest.mark.parametrize("shape", BLOCKED)
@pytest.mark.parametrize("pool", [(1, 1), (2, 3)])
@pytest.mark.parametrize("ragged", [False, True])
def test_strided_layers_of_many_channels(shape, pool, ragged):
    channels, bins, frames, out_channels, kernel, stride, padding = shape
    x, weight, *small = [t.detach() for t in make(3, channels, bins, frames, out_channels, kernel)]
    sizes = zip((bins, frames), kernel, stride, padding, pool)
    options = dict(
        lengths=torch.tensor([frames, 0, frames // 2 + 1]) if ragged else None,
        stride=stride,
        padding=padding,
        activation=HARDTANH,
        pool=tuple(min(most, (size + 2 * p - k) // s + 1) for size, k, s, p, most in sizes),
    )
    # As networks have them: outputs of about 1.
    tensors = [x, weight * weight[0].numel() ** -0.5, *small]
    expected = reference.masked_conv2d(*(t.double() for t in tensors), **options)
    assert_close(ops.masked_conv2d(*tensors, **options), expected, 1e-5)
    assert_close(ops.masked_conv2d(*(t.double() for t in tensors), **options), expected, 1e-14)


def test_thousands_of_products_are_summed_by_blocks():
    """One chain of 4,608 products would be off by 2e-6."""
    x, weight = torch.randn(2, 512, 9, 40), torch.randn(48, 512, 3, 3)
    options = dict(stride=(2, 2), padding=(1, 1))
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), None, **options)
    assert_close(ops.masked_conv2d(x, weight, activation=None, **options), expected, 8e-7)


@pytest.mark.parametrize("stride", [4, 5, 100, 400])
def test_strides_longer_than_the_kernel(stride):
    """Up to four times as long layers are convolved by blocks; with 400 there is one frame of output."""
    x, weight = torch.randn(2, 32, 3, 350), torch.randn(16, 32, 3, 1) / 10
    options = dict(stride=(1, stride), padding=(1, 0))
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), None, **options)
    assert_close(ops.masked_conv2d(x, weight, activation=None, **options), expected, 1e-5)


# channels, bins, frames, kernel, stride, padding
DEPTHWISE = [
    (2, 1, 1, (1, 1), (1, 1), (0, 0)),
    (5, 1, 37, (1, 3), (1, 1), (0, 1)),
    (33, 1, 50, (1, 3), (1, 2), (0, 1)),
    (7, 6, 29, (3, 5), (2, 3), (1, 4)),
    (4, 5, 40, (2, 11), (1, 1), (0, 5)),
]


@pytest.mark.parametrize("channels, bins, frames, kernel, stride, padding", DEPTHWISE)
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_filter_for_each_channel(channels, bins, frames, kernel, stride, padding, pooled, ragged):
    tensors = make(3, channels, bins, frames, channels, kernel)
    tensors[1] = torch.randn(channels, 1, *kernel, requires_grad=True)
    options = dict(
        lengths=torch.tensor([frames, 0, frames // 2 + 1]) if ragged else None,
        stride=stride,
        padding=padding,
        activation=(-1.5, 3.0),
        pool=(1, min(2, frames)) if pooled else (1, 1),
        groups=channels,
    )
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    output, expected = ops.masked_conv2d(*tensors, **options), reference.masked_conv2d(*doubles, **options)
    assert_close(output, expected, 1e-5)
    assert_close(ops.masked_conv2d(*doubles, **options), expected, 1e-14)
    seed = torch.randn_like(output)
    grads = torch.autograd.grad(output, tensors, seed)
    for index, (grad, wanted) in enumerate(zip(grads, torch.autograd.grad(expected, doubles, seed.double()))):
        assert_close(grad, wanted, 1e-4, f"gradient {index}")


@pytest.mark.parametrize("stride", [1, 2])
def test_rows_of_single_channels_are_invariant(stride, threads):
    x, weight = torch.randn(4, 19, 2, 61), torch.randn(19, 1, 2, 3)
    lengths = torch.tensor([61, 7, 0, 40])
    options = dict(stride=(1, stride), padding=(1, 1), groups=19)
    together = ops.masked_conv2d(x, weight, lengths=lengths, **options)
    for count in (1, 3):
        threads(count)
        for row, length in enumerate(lengths.tolist()):
            if length == 0:
                continue
            alone = ops.masked_conv2d(x[row : row + 1, ..., :length], weight, **options)
            assert_same_bits(together[row, ..., : alone.shape[-1]], alone[0])


@pytest.mark.parametrize(
    "groups, shape, message",
    [
        (2, (4, 1, 3, 3), "groups: expected 1 or the 4 channels of input, received 2"),
        (4, (4, 2, 3, 3), r"weight: expected shape \(4, 1, 3, 3\), received \(4, 2, 3, 3\)"),
        (4, (8, 1, 3, 3), r"weight: expected shape \(4, 1, 3, 3\), received \(8, 1, 3, 3\)"),
    ],
)
def test_bad_groups_are_named(groups, shape, message):
    x, weight = torch.zeros(1, 4, 5, 5), torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        ops.masked_conv2d(x, weight, groups=groups)
    with pytest.raises(ValueError, match=f"{message.partition(':')[0]}: expected"):
        bounds = -float("inf"), float("inf")
        torch.ops.asrkern.masked_conv2d(x, weight, *[None] * 5, [1, 1], [0, 0], *bounds, [1, 1], groups)


@pytest.mark.parametrize("shape", WINOGRAD)
@pytest.mark.parametrize("pool", [(1, 1), (3, 1), (2, 2), (1, 5)])
@pytest.mark.parametrize("ragged", [False, True])
def test_kernels_of_three_frames(shape, pool, ragged):
    channels, bins, frames, out_channels, kernel_bins, stride, *padding = shape
    x, weight, *small = [t.detach() for t in make(3, channels, bins, frames, out_channels, (kernel_bins, 3))]
    size = (bins + 2 * padding[0] - kernel_bins) // stride + 1, frames + 2 * padding[1] - 2
    options = dict(
        lengths=torch.tensor([frames, 0, frames // 2 + 1]) if ragged else None,
        stride=(stride, 1),
        padding=padding,
        activation=HARDTANH,
        pool=tuple(map(min, pool, size)),
    )
    # As networks have them: outputs of about 1.
    tensors = [x, weight * (channels * kernel_bins * 3) ** -0.5, *small]
    expected = reference.masked_conv2d(*(t.double() for t in tensors), **options)
    assert_close(ops.masked_conv2d(*tensors, **options), expected, 1e-5)
    assert_close(ops.masked_conv2d(*(t.double() for t in tensors), **options), expected, 1e-14)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 7), (1, 2), (1, 1)])
@pytest.mark.parametrize("pool", [(2, 1), (3, 2), (1, 4), (5, 7)])
def test_pool(kernel, pool):
    """After every algorithm; gradients, too."""
    tensors = make(3, 16, 11, 37, 16, kernel)
    with torch.no_grad():
        # As networks have them: outputs of about 1.
        tensors[1] *= tensors[1][0].numel() ** -0.5
    options = dict(lengths=torch.tensor([37, 0, 18]), padding=(1, 1), activation=(-0.5, 3.0), pool=pool)
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    output, expected = ops.masked_conv2d(*tensors, **options), reference.masked_conv2d(*doubles, **options)
    assert_close(output, expected, 1e-5)
    seed = torch.randn_like(output)
    grads = torch.autograd.grad(output, tensors, seed)
    for index, (grad, wanted) in enumerate(zip(grads, torch.autograd.grad(expected, doubles, seed.double()))):
        assert_close(grad, wanted, 1e-4, f"gradient {index}")


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 3), (1, 2)])
def test_pool_keeps_nan(frames, kernel):
    x, weight = torch.randn(1, 16, 4, 24), torch.randn(16, 16, *kernel)
    x[0, 3, 2, 5] = float("nan")
    pooled = ops.masked_conv2d(x, weight, pool=(2, frames))
    expected = torch.nn.functional.max_pool2d(ops.masked_conv2d(x, weight), (2, frames))
    assert pooled.isnan().any() and torch.equal(pooled.isnan(), expected.isnan())
    assert_same_bits(pooled.nan_to_num(), expected.nan_to_num())


def test_output_lengths_mask_the_output_only():
    tensors = [t.detach() for t in make()]
    whole = ops.masked_conv2d(*tensors)
    masked = ops.masked_conv2d(*tensors, output_lengths=torch.tensor([27, 3, 0]))
    for row, length in enumerate((27, 3, 0)):
        assert_same_bits(masked[row, ..., :length], whole[row, ..., :length])
        assert masked[row, ..., length:].abs().sum() == 0


@pytest.mark.parametrize("pool", [(1, 1), (3, 2)])
def test_gradcheck(pool):
    tensors = make(2, 2, 6, 7, 3, (3, 2), torch.float64)
    options = dict(
        lengths=torch.tensor([7, 4]), stride=(2, 1), padding=(1, 1), activation=(-1.03, 2.21), pool=pool
    )

    def run(*tensors):
        return ops.masked_conv2d(*tensors, **options)

    assert torch.autograd.gradcheck(run, tensors)


# in_channels, bins, frames, out_channels, kernel, stride, padding: groups of one, two and more vectors of channels, blocks
# of many frames, kernels that do not meet all bins, paddings of more than the kernel, every algorithm for the input.
GRADIENTS = [
    (1, 9, 300, 32, (5, 3), (2, 2), (1, 2)),
    (3, 8, 140, 17, (3, 3), (3, 1), (0, 1)),
    (2, 5, 40, 3, (2, 5), (4, 1), (3, 4)),
    (30, 3, 129, 70, (1, 3), (1, 1), (0, 1)),
    (16, 6, 31, 16, (3, 3), (1, 1), (4, 2)),
    (17, 1, 50, 40, (1, 1), (1, 1), (0, 0)),
    (4, 7, 20, 9, (7, 4), (2, 3), (2, 5)),
    (5, 4, 33, 8, (4, 2), (1, 1), (2, 1)),
    (33, 6, 61, 18, (3, 3), (2, 1), (1, 2)),
    (1, 1, 2, 1, (1, 2), (1, 1), (0, 0)),
]


@pytest.mark.parametrize("shape", GRADIENTS)
@pytest.mark.parametrize("lengths", ["none", "input", "output", "both"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_gradients(shape, lengths, dtype, tolerance):
    channels, bins, frames, out_channels, kernel, stride, padding = shape
    tensors = [t.requires_grad_() for t in make(3, channels, bins, frames, out_channels, kernel, dtype)[:2]]
    with torch.no_grad():
        # As networks have them: outputs of about 1.
        tensors[1] *= tensors[1][0].numel() ** -0.5
    after = (frames + 2 * padding[1] - kernel[1]) // stride[1] + 1
    options = {"stride": stride, "padding": padding}
    if lengths in ("input", "both"):
        options["lengths"] = torch.tensor([frames, 0, frames // 2 + 1])
    if lengths in ("output", "both"):
        options["output_lengths"] = torch.tensor([after // 3, after, after - 1])
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    output, expected = ops.masked_conv2d(*tensors, **options), reference.masked_conv2d(*doubles, **options)
    seed = torch.randn_like(output)
    wanted = torch.autograd.grad(expected, doubles, seed.double())
    for index, (grad, want) in enumerate(zip(torch.autograd.grad(output, tensors, seed), wanted)):
        assert_close(grad, want, tolerance, f"gradient {index}")
    if stride[1] == 1 and padding[1] < kernel[1]:
        # It is taken where it pays; it is right everywhere.
        arguments = [options.get(name) for name in ("lengths", "output_lengths", "stride", "padding")]
        grad = torch.ops.asrkern.masked_conv2d_backward_input(
            seed, *map(torch.Tensor.detach, tensors), *arguments
        )
        assert_close(grad, wanted[0], tolerance, "masked_conv2d_backward_input")


@pytest.mark.parametrize("which", ["input", "weight"])
@pytest.mark.parametrize("shape", GRADIENTS)
def test_gradients_do_not_depend_on_threads(shape, which, threads):
    channels, bins, frames, out_channels, kernel, stride, padding = shape
    if which == "input" and (stride[1] > 1 or padding[1] >= kernel[1]):
        return
    x, weight = (t.detach() for t in make(5, channels, bins, frames, out_channels, kernel)[:2])
    lengths = torch.tensor([frames, 0, 1, frames, frames // 2])
    grad = torch.randn_like(ops.masked_conv2d(x, weight, lengths=lengths, stride=stride, padding=padding))
    backward, found = getattr(torch.ops.asrkern, f"masked_conv2d_backward_{which}"), []
    for thread_count in (1, 2, 5):
        threads(thread_count)
        found.append(backward(grad, x, weight, lengths, None, stride, padding))
    for gradient in found[1:]:
        assert_same_bits(gradient, found[0])


@pytest.mark.parametrize("of", ["input", "weight"])
@pytest.mark.parametrize("loss", [torch.Tensor.sum, lambda y: y.square().sum()], ids=["linear", "square"])
def test_second_derivatives(loss, of):
    """Also where the gradient of the output needs none: a penalty on gradients of a loss that is linear in it."""
    x, weight = make(2, 3, 8, 12, 4, (5, 5), torch.float64)[:2]
    options = dict(lengths=torch.tensor([12, 4]), stride=(2, 1), padding=(1, 1))

    def penalty(function):
        (grad,) = torch.autograd.grad(
            loss(function(x, weight, **options)), x if of == "input" else weight, create_graph=True
        )
        return torch.autograd.grad(grad.square().sum(), (x, weight), materialize_grads=True)

    for grad, expected in zip(penalty(ops.masked_conv2d), penalty(reference.masked_conv2d)):
        assert_close(grad, expected, 1e-13)


def test_second_derivatives_by_torch_func():
    x, weight = (t.detach() for t in make(1, 2, 6, 8, 2, (5, 5), torch.float64)[:2])

    def hessian(function):
        return torch.func.jacrev(torch.func.jacrev(lambda w: function(x, w, padding=(2, 2)).square().sum()))(
            weight
        )

    assert_close(hessian(ops.masked_conv2d), hessian(reference.masked_conv2d), 1e-13)


def test_backward_input_is_refused_where_it_is_no_convolution():
    backward = torch.ops.asrkern.masked_conv2d_backward_input
    x, weight = torch.randn(1, 2, 5, 9), torch.randn(3, 2, 3, 2)
    with pytest.raises(ValueError, match=r"stride: expected 1 along T \(time\), received 2"):
        backward(torch.randn(1, 3, 3, 4), x, weight, None, None, [1, 2], [0, 0])
    with pytest.raises(ValueError, match=r"padding: expected less than the kernel's 2 frames .* received 2"):
        backward(torch.randn(1, 3, 3, 12), x, weight, None, None, [1, 1], [0, 2])


@pytest.mark.parametrize("thread_count", [1, 2, 5])
@pytest.mark.parametrize(
    "channels, frames, kernel, stride, pool",
    [
        (3, 50, (7, 5), (2, 1), (1, 1)),
        (16, 50, (3, 3), (1, 1), (1, 1)),
        (33, 500, (1, 3), (1, 1), (1, 1)),
        (16, 300, (1, 3), (2, 1), (3, 2)),
        (3, 50, (3, 2), (1, 1), (2, 3)),
        (33, 100, (1, 1), (1, 1), (1, 1)),
        (40, 300, (3, 3), (2, 2), (1, 1)),
        (16, 500, (1, 4), (1, 2), (2, 2)),
    ],
)
def test_rows_are_invariant(thread_count, threads, channels, frames, kernel, stride, pool):
    threads(thread_count)
    x, *parameters = [t.detach() for t in make(16, channels, 20, frames, 32, kernel)]
    options = dict(stride=stride, padding=(kernel[0] // 2, kernel[1] // 2), activation=HARDTANH, pool=pool)
    lengths = torch.randint(pool[1], frames + 1, (16,))
    for rows in (2, 3, 7, 16):
        padded = torch.nn.functional.pad(x[:rows], (0, 9), value=float("nan"))
        output = ops.masked_conv2d(padded, *parameters, lengths=lengths[:rows], **options)
        for i in range(rows):
            alone = ops.masked_conv2d(x[i : i + 1, ..., : lengths[i]], *parameters, **options)
            assert_same_bits(output[i, ..., : alone.shape[3]], alone[0], f"row {i} of {rows}")
            assert output[i, ..., alone.shape[3] :].abs().sum() == 0


def test_conv_output_lengths_are_exact():
    lengths = torch.arange(0, 3000)
    out = ops.conv_output_lengths(lengths, 11, 2, 5)
    assert out[0] == 0
    expected = torch.nn.functional.conv1d(torch.zeros(1, 1, 2999), torch.zeros(1, 1, 11), stride=2, padding=5)
    assert out[2999] == expected.shape[2]
    assert torch.equal(out[1:], (lengths[1:] + 10 - 11) // 2 + 1)
    assert torch.equal(
        ops.conv_output_lengths(torch.tensor([0, 5, 10, 11, 13]), 11, 2), torch.tensor([0, 0, 0, 1, 2])
    )


@pytest.mark.parametrize("kernel_size", [1, 3, 4, 5, 7, 11, 16, 17, 33])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_tiles_have_the_bits_of_the_row(kernel_size, stride, dtype):
    tile = ops.conv_tile(kernel_size, stride)
    x, *parameters = [t.detach() for t in make(1, 8, 3, 700, 16, (3, kernel_size), dtype)]
    whole = ops.masked_conv2d(x, *parameters, stride=(1, stride))
    for tiles, first in ((1, 0), (2, 1), (3, 4)):
        frame, frames = first * tile.outputs, tiles * tile.outputs
        window = x[..., frame * stride :][..., : (frames - tile.outputs) * stride + tile.inputs]
        part = ops.masked_conv2d(window, *parameters, stride=(1, stride))
        assert_same_bits(part, whole[..., frame : frame + frames])


BAD = {
    "rank": (dict(input=torch.randn(2, 20, 31)), "input: expected 4 dimensions"),
    "channels": (dict(input=torch.randn(3, 4, 20, 31)), "input: expected 2 channels"),
    "too short": (
        dict(input=torch.randn(3, 2, 20, 4)),
        r"input: expected T \(time\) of at least 5.*received 4",
    ),
    "too low": (dict(input=torch.randn(3, 2, 6, 31)), r"input: expected F \(frequency\) of at least 7"),
    "empty": (dict(input=torch.randn(3, 2, 20, 0)), "input: expected at least one value"),
    "stride": (dict(stride=(0, 1)), r"stride: expected two integers of at least 1, received \(0, 1\)"),
    "padding": (dict(padding=(0, -1)), "padding: expected two integers of at least 0"),
    "pool": (dict(pool=(1, 28)), r"pool: expected two integers from 1 to \(14, 27\).*received \(1, 28\)"),
    "no pool": (dict(pool=(0, 1)), r"pool: expected two integers from 1 to .*received \(0, 1\)"),
    "one pool": (dict(pool=(2,)), r"pool: expected two integers .*received \(2,\)"),
    "scale": (dict(scale=torch.randn(4)), r"scale: expected shape \(5,\), received \(4,\)"),
    "lengths": (dict(lengths=torch.tensor([32, 1, 1])), "lengths: .*received 32 at row 0"),
    "output_lengths": (
        dict(output_lengths=torch.tensor([1, 28, 1])),
        "output_lengths: .*received 28 at row 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changed, message = BAD[case]
    args = dict(zip(("input", "weight", "bias", "scale", "shift"), (t.detach() for t in make())))
    with pytest.raises((ValueError, TypeError), match=message):
        ops.masked_conv2d(**{**args, **changed})
