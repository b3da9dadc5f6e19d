"""One recurrent layer, DeepSpeech2 and its convolutions in stock torch, ONNX Runtime, OpenVINO and asrkern.

A backend is a function without arguments that prepares everything a user prepares once and returns the call to be
timed, whose tensors have one form for all backends. What a runtime lays out differently is compared as a view,
so that nothing but its own work is timed. Runtimes that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asrkern.nn import convert, quantize
from benchmarks._formats import FORMATS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Call = Callable[[], Sequence[Tensor]]
Backend = Callable[[], Call]

TORCH, PACKED, COMPILED, ONNX_RUNTIME, OPENVINO, ASRKERN = (
    "torch",
    "torch packed",
    "torch.compile",
    "ONNX Runtime",
    "OpenVINO",
    "asrkern",
)
# asrkern with weights in fewer bits, and perhaps activations.
QUANTIZED = {f"{ASRKERN} {name}": types for name, types in FORMATS.items()}
# Peers with both in int8; a row's result depends on the rows beside it in ONNX Runtime's and torch's.
TORCH_INT8, ONNX_RUNTIME_INT8 = "torch.ao int8", "ONNX Runtime int8"
# How far an output may be from float32's, relative to the largest.
FEWER_BITS = {
    "asrkern bf16": 2e-2,
    "asrkern int8": 2e-2,
    "asrkern int8/int8": 4e-2,
    TORCH_INT8: 1e-1,
    ONNX_RUNTIME_INT8: 1e-1,
}

# Where ONNX's gates are among torch's: update, reset, hidden of torch's reset, update, new; input, output, forget, cell
# of torch's input, forget, cell, output.
ONNX_GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}


def rnn_forward(module: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Stock torch on x [T, N, I]: padded, or packed where there are lengths."""
    if lengths is None:
        return module(x)[0]
    packed, _ = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
    return pad_packed_sequence(packed, total_length=len(x))[0]


def rnn_backends(
    module: nn.RNNBase, x: Tensor, lengths: Tensor | None = None, quantized: bool = False
) -> dict[str, Backend]:
    """One bidirectional layer in inference, on the same weights; the calls return [T, N, 2, H]."""

    def stock() -> Call:
        return _inference(lambda: [rnn_forward(module, x, lengths).unflatten(-1, (2, -1))])

    def asrkern(*types: str) -> Call:
        layer = quantize(module, *types) if types else convert(module).model.eval()
        return _inference(lambda: [layer(x, lengths=lengths)[0].unflatten(-1, (2, -1))])

    def exported(runtime: Callable[..., Call]) -> Backend:
        def backend() -> Call:
            run = runtime(onnx_rnn(module, x, lengths), _rnn_inputs(x, lengths))
            return lambda: [y.transpose(1, 2) for y in run()]

        return backend

    def stock_int8() -> Call:
        with warnings.catch_warnings():
            # It is to be replaced by torchao, which has no recurrent layers.
            warnings.simplefilter("ignore")
            layers = torch.ao.quantization.quantize_dynamic(
                nn.Sequential(module), {type(module)}, torch.qint8
            )
        return _inference(lambda: [rnn_forward(layers[0], x, lengths).unflatten(-1, (2, -1))])

    peers = {name: exported(runtime) for name, runtime in installed().items()}
    if not quantized:
        return {TORCH: stock, **peers, ASRKERN: asrkern}
    peers[TORCH_INT8] = stock_int8
    # Of a GRU its quantize_dynamic leaves all in float32, without a word.
    if ONNX_RUNTIME in peers and isinstance(module, nn.LSTM):
        peers[ONNX_RUNTIME_INT8] = exported(onnx_runtime_int8)
    fewer_bits = {name: partial(asrkern, *types) for name, types in QUANTIZED.items()}
    return {TORCH: stock, **peers, ASRKERN: asrkern, **fewer_bits}


def _inference(call: Call) -> Call:
    return torch.inference_mode()(call)


def _rnn_inputs(x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
    return {"x": x} if lengths is None else {"x": x, "lengths": lengths.int()}


def onnx_rnn(module: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> ModelProto:
    """One bidirectional layer for x: [T, N, I] and, if given, lengths: [N]; output [T, 2, N, H]."""
    from onnx import helper

    kind = type(module).__name__
    gates = ONNX_GATES[kind]

    def reordered(weight: Tensor) -> Tensor:
        parts = weight.detach().chunk(len(gates))
        return torch.cat([parts[gate] for gate in gates])

    directions = [[reordered(weight) for weight in weights] for weights in module.all_weights]
    weights = {
        "W": torch.stack([w_ih for w_ih, _, _, _ in directions]),
        "R": torch.stack([w_hh for _, w_hh, _, _ in directions]),
        "B": torch.stack([torch.cat([b_ih, b_hh]) for _, _, b_ih, b_hh in directions]),
    }
    inputs = _rnn_inputs(x, lengths)
    # torch's variant of the GRU; an LSTM has no such choice.
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    node = helper.make_node(
        kind,
        ["x", "W", "R", "B", *list(inputs)[1:]],
        ["y"],
        hidden_size=module.hidden_size,
        direction="bidirectional",
        **options,
    )
    return _onnx_model([node], inputs, weights)


def onnx_conv_stack(stack: nn.Sequential, inputs: dict[str, Tensor]) -> ModelProto:
    """Conv2d, BatchNorm2d, Hardtanh, twice, for inputs["x"]: [N, 1, F, T]; output [T', N, C · F'].

    Further inputs are masks: what x and then each Hardtanh's output is multiplied by.
    """
    from onnx import helper

    nodes: list[NodeProto] = []
    weights = {"flat": torch.tensor([0, 0, -1])}

    def append(kind: str, others: Sequence[str] = (), **attributes: object) -> None:
        last = nodes[-1].output[0] if nodes else "x"
        output = f"{kind}{len(nodes)}"
        nodes.append(helper.make_node(kind, [last, *others], [output], **attributes))

    def constants(**tensors: Tensor) -> list[str]:
        named = {f"{name}{len(nodes)}": tensor for name, tensor in tensors.items()}
        weights.update(named)
        return list(named)

    masks = [name for name in inputs if name != "x"]

    def multiply_by_next_mask() -> None:
        if masks:
            append("Mul", [masks.pop(0)])

    multiply_by_next_mask()
    for module in stack:
        if isinstance(module, nn.Conv2d):
            append(
                "Conv",
                constants(weight=module.weight, bias=module.bias),
                strides=module.stride,
                pads=[*module.padding, *module.padding],
            )
        elif isinstance(module, nn.BatchNorm2d):
            names = constants(
                scale=module.weight, shift=module.bias, mean=module.running_mean, var=module.running_var
            )
            append("BatchNormalization", names, epsilon=module.eps)
        else:
            bounds = torch.tensor([module.min_val, module.max_val], dtype=torch.float32)
            append("Clip", constants(low=bounds[0], high=bounds[1]))
            multiply_by_next_mask()
    append("Transpose", perm=[3, 0, 1, 2])
    append("Reshape", ["flat"])
    return _onnx_model(nodes, inputs, weights)


def onnx_export(module: nn.Module, x: Tensor) -> ModelProto:
    """A whole model of x, for inputs of exactly this shape; one output."""
    import onnx

    file = io.BytesIO()
    with warnings.catch_warnings():
        # This exporter is the older of torch's two, the one that keeps a recurrent layer whole.
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), file, dynamo=False, input_names=["x"], opset_version=17)
    return onnx.load_from_string(file.getvalue())


def _onnx_model(
    nodes: Sequence[NodeProto], inputs: dict[str, Tensor], weights: dict[str, Tensor]
) -> ModelProto:
    """The nodes, whose last one has the output, for inputs of exactly these shapes."""
    from onnx import helper, numpy_helper

    def dtype(tensor: Tensor) -> int:
        return helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, dtype(x), x.shape) for name, x in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], dtype(inputs["x"]), None)],
        [numpy_helper.from_array(w.detach().numpy(), name) for name, w in weights.items()],
    )
    # Versions that every runtime of the last years reads.
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def onnx_runtime(model: ModelProto, inputs: dict[str, Tensor]) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would otherwise keep the cores busy while the next backend is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {name: x.numpy() for name, x in inputs.items()}
    return lambda: [torch.from_numpy(y) for y in session.run(None, feeds)]


def onnx_runtime_int8(model: ModelProto, inputs: dict[str, Tensor]) -> Call:
    """With int8 weights and activations wherever ONNX Runtime has an operator for them."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "int8.onnx")
        # per_channel: a scale for each output, as asrkern has one. reduce_range: weights of seven bits, without which
        # sums of products saturate at 16 bits on CPUs without VNNI (an error of 0.7 of the largest value).
        quantize_dynamic(model, target, per_channel=True, reduce_range=True)
        return onnx_runtime(onnx.load(target), inputs)


def open_vino(model: ModelProto, inputs: dict[str, Tensor]) -> Call:
    """The tensors of a call are overwritten by the next."""
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Otherwise bfloat16 where the CPU has it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", options
    ).create_infer_request()
    feeds = {name: x.numpy() for name, x in inputs.items()}

    def call() -> list[Tensor]:
        results = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [torch.from_numpy(y) for y in results.values()]

    return call


class Runtime(NamedTuple):
    """What runs an ONNX model, and the package that it needs beside onnx."""

    package: str
    prepare: Callable[[ModelProto, dict[str, Tensor]], Call]

    @property
    def missing(self) -> list[str]:
        return [name for name in ("onnx", self.package) if importlib.util.find_spec(name) is None]


RUNTIMES = {
    ONNX_RUNTIME: Runtime("onnxruntime", onnx_runtime),
    OPENVINO: Runtime("openvino", open_vino),
}


def installed() -> dict[str, Callable[[ModelProto, dict[str, Tensor]], Call]]:
    """By name, what runs an ONNX model here."""
    return {name: runtime.prepare for name, runtime in RUNTIMES.items() if not runtime.missing}


def not_installed() -> dict[str, str]:
    """The runtimes that are left out here, and what to do about it."""
    return {
        name: f"not installed: pip install {' '.join(runtime.missing)}"
        for name, runtime in RUNTIMES.items()
        if runtime.missing
    }
