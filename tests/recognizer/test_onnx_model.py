"""CTC models in ONNX files: what they read, where their frames are, and what is refused."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn
from typer.testing import CliRunner

import asrkern
from asrkern.cli.app import app
from asrkern.data import Fbank
from asrkern.decoder import CTCBeamDecoder
from asrkern.recognizer import FeatureSettings, StreamTranscriber, Transcriber, align, save
from asrkern.recognizer.tokenizer import PieceTokenizer
from tests.cli.tiny import lively, make_recognizer, speech, write
from tests.decoder.models import small_lm

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LETTERS = ("<pad>", "<s>", "|", "A", "B", "C", "D", "E")
PIECES = ("▁a", "b", "▁cd", "e", "<blk>")
# Steps of 20 and 2 · 2 of these.
AUDIO_STACK = ((50, 10, 0), (3, 2, 0))
FEATURE_STACK = ((3, 2, 1), (3, 2, 1))


class Stack(nn.Module):
    """Convolutions of (kernel, stride, padding), then the labels.

    Args:
        bins: features per frame; 0: audio [N, T].
        layout: of features, "NFT" or "NTF".
    """

    def __init__(self, stack: Any, classes: int, bins: int = 0, layout: str = "NFT", ending: str = "logits"):
        super().__init__()
        torch.manual_seed(len(stack) + bins)
        sizes = (bins or 1, 6, 6)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(sizes[min(i, 1)], 6, kernel, stride, padding)
            for i, (kernel, stride, padding) in enumerate(stack)
        )
        self.out = nn.Linear(6, classes)
        self.bins, self.layout, self.ending = bins, layout, ending
        lively(self, 3.0)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = x[:, None] if not self.bins else x.transpose(1, 2) if self.layout == "NTF" else x
        for convolution in self.convolutions:
            x = convolution(x).tanh()
        x = self.out(x.transpose(1, 2))
        if lengths is not None:
            # Read, so that it stays an input.
            x = x + 0 * lengths.sum().to(x.dtype)
        return {"logits": x, "log_probs": x.log_softmax(-1), "probs": x.softmax(-1)}[self.ending]


def export(
    path: Path,
    model: nn.Module,
    *,
    lengths: Tensor | None = None,
    metadata: dict[str, Any] | None = None,
    dynamic: tuple[int, ...] | None = None,
) -> Path:
    """The model's file. Its last dimension (audio) or that of time has any size, unless dynamic says otherwise."""
    bins = model.bins
    shape = (1, 4000) if not bins else (1, bins, 60) if model.layout == "NFT" else (1, 60, bins)
    if dynamic is None:
        dynamic = (0, 1) if not bins else (0, 2 if model.layout == "NFT" else 1)
    given = (torch.randn(shape),) if lengths is None else (torch.randn(shape), lengths)
    names = ["audio", "lengths"][: len(given)]
    axes = {"audio": list(dynamic), "lengths": list(range(lengths.dim())) if lengths is not None else []}
    torch.onnx.export(
        model, given, str(path), dynamo=False, input_names=names, output_names=["out"],
        dynamic_axes={**{name: axes[name] for name in names}, "out": [0, 1]},
    )  # fmt: skip
    if metadata:
        file = onnx.load(path)
        onnx.helper.set_model_props(file, {key: str(value) for key, value in metadata.items()})
        onnx.save(file, path)
    return path


def write_tokens(path: Path, labels: tuple[str, ...]) -> Path:
    path.write_text("".join(f"{label} {index}\n" for index, label in enumerate(labels)), "utf-8")
    return path


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.txt", LETTERS)


def audio_model(folder: Path, **options: Any) -> tuple[nn.Module, Path]:
    model = Stack(AUDIO_STACK, len(LETTERS), **options)
    return model, export(folder / "model.onnx", model)


def normalised(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(correction=0) + 1e-7).sqrt()


def scores(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x[None])[0].log_softmax(-1)


@pytest.mark.parametrize("ending", ["logits", "log_probs", "probs"])
def test_audio(tmp_path: Path, letters: Path, ending: str) -> None:
    model = Stack(AUDIO_STACK, len(LETTERS), ending=ending)
    recognizer = asrkern.load(export(tmp_path / "model.onnx", model), letters)
    model.ending = "logits"
    clips = [speech(0.5, seed=1), speech(0.9, seed=2)]
    features = [recognizer.features.make()(clip) for clip in clips]
    log_probs, frames = recognizer.model(
        torch.nn.utils.rnn.pad_sequence([f[0] for f in features], batch_first=True)[:, None, None],
        [f.shape[1] for f in features],
    )
    for row, count, clip in zip(log_probs, frames.tolist(), clips):
        expected = scores(model, normalised(clip))
        assert count == len(expected)
        # ONNX Runtime sums in another order.
        torch.testing.assert_close(row[:count], expected, rtol=1e-4, atol=1e-4)
        assert not row[count:].any()
    greedy = recognizer.predict_audio(clips)
    assert greedy == [recognizer.predict_audio([clip])[0] for clip in clips] and len(set(greedy)) == 2


def test_words_and_their_times(tmp_path: Path, letters: Path) -> None:
    model, path = audio_model(tmp_path)
    recognizer = asrkern.load(path, letters)
    lm = small_lm(["A", "AB", "BAD", "DA", "E", "C"])
    samples = speech(2.0, seed=3)
    found = Transcriber(recognizer, lm, alpha=1.0, beam_width=20, hotwords=["BAD"]).recording(samples)
    decoder = CTCBeamDecoder(list(LETTERS), lm, alpha=1.0, beam_width=20, hotwords=["BAD"])
    [best] = decoder.decode(scores(model, normalised(samples)))
    assert found.text == best.text and len(found.words) == len(best.words) > 3
    for word, expected in zip(found.words, best.words):
        # Frame t sees samples 20 t to 20 t + 69: the middle, and half a step to each side.
        begin, end = ((34.5 + 20 * (frame - 0.5)) / 16000 for frame in (expected.start, expected.end))
        assert word.text == expected.text
        assert (word.start_seconds, word.end_seconds) == pytest.approx((begin, end), abs=1e-9)


def test_windows_are_as_the_whole(tmp_path: Path, letters: Path) -> None:
    _, path = audio_model(tmp_path)
    transcriber = Transcriber(asrkern.load(path, letters), beam_width=8)
    samples = speech(3.0, seed=4)
    assert transcriber.recording(samples, 0.5, 0.1) == transcriber.recording(samples, 100.0)


CONVENTIONS = {
    "nemo": ({"model_type": "EncDecCTCModelBPE", "normalize_type": "per_feature"}, "NFT", 80),
    "hybrid": ({"model_type": "EncDecHybridRNNTCTCBPEModel", "normalize_type": "NA"}, "NFT", 80),
    "gigaam": ({"model_type": "EncDecCTCModel", "is_giga_am": 1, "normalize_type": ""}, "NFT", 64),
    "icefall": ({"model_type": "zipformer2_ctc"}, "NTF", 80),
    "wenet": ({"model_type": "wenet_ctc"}, "NTF", 80),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_features_that_the_metadata_name(tmp_path: Path, name: str) -> None:
    metadata, layout, bins = CONVENTIONS[name]
    model = Stack(FEATURE_STACK, len(PIECES), bins, layout)
    lengths = torch.tensor([60], dtype=torch.int32 if name == "wenet" else torch.int64)
    path = export(tmp_path / "model.onnx", model, lengths=lengths, metadata=metadata)
    recognizer = asrkern.load(path, write_tokens(tmp_path / "tokens.txt", PIECES))
    samples = speech(1.0, seed=5)
    convention = "nemo" if name == "hybrid" else name
    features = Fbank(bins, convention, cmvn=name == "nemo")(samples)
    expected = scores(model, features if layout == "NFT" else features.t())
    log_probs, _ = recognizer.model(recognizer.features.make()(samples)[None, None], [features.shape[1]])
    torch.testing.assert_close(log_probs[0], expected, rtol=1e-4, atol=1e-3)
    found = Transcriber(recognizer, beam_width=20).recording(samples)
    [best] = CTCBeamDecoder(list(PIECES), beam_width=20).decode(log_probs[0])
    assert found.text == best.text and isinstance(recognizer.tokenizer, PieceTokenizer)
    # Output frame t is centred on input frame 4 t, and that on 5 ms + 40 t ms.
    first = max(0.0, 0.005 + 0.04 * (best.words[0].start - 0.5))
    assert found.words[0].start_seconds == pytest.approx(first, abs=1e-9)
    path = [label for label, _ in itertools.groupby(PIECES[i] for i in log_probs[0].argmax(-1).tolist())]
    greedy = "".join(path).replace("<blk>", "").replace("▁", " ").strip()
    assert recognizer.predict_audio([samples]) == [greedy] and greedy


@pytest.mark.parametrize(
    "stack",
    [((3, 1, 1),), ((2, 2, 0),), ((5, 2, 2), (5, 3, 0)), ((400, 320, 0),), ((7, 1, 0), (3, 4, 2)), ((10, 10, 5),)],
)  # fmt: skip
def test_frames_are_counted(tmp_path: Path, letters: Path, stack: Any) -> None:
    model = Stack(stack, len(LETTERS))
    recognizer = asrkern.load(export(tmp_path / "model.onnx", model), letters)
    step = int(np.prod([stride for _, stride, _ in stack]))
    offset, scale = 0.0, 1
    for kernel, stride, padding in stack:
        offset += scale * ((kernel - 1) / 2 - padding)
        scale *= stride
    assert recognizer.model.frame_geometry == (step, offset)
    for frames in (401, 777, 4000, 4321):
        expected = len(scores(model, torch.zeros(frames)))
        assert recognizer.model.output_length(frames) == expected


def test_a_mask_and_a_configuration_beside_the_model(tmp_path: Path, letters: Path) -> None:
    model = Stack(AUDIO_STACK, len(LETTERS))
    path = export(tmp_path / "model.onnx", model, lengths=torch.ones(1, 4000, dtype=torch.int64))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": False, "sampling_rate": 8000})
    )
    recognizer = asrkern.load(path, letters)
    assert recognizer.features == FeatureSettings(
        kind="samples", sample_rate=8000, hop_seconds=1 / 8000, cmvn=False
    )
    samples = speech(0.5)
    log_probs, _ = recognizer.model(samples[None, None, None], [len(samples)])
    torch.testing.assert_close(log_probs[0], scores(model, samples), rtol=1e-4, atol=1e-4)
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"preprocessor_config.json: expected an object with a sampling_rate"
    ):
        asrkern.load(path, letters)


def test_features_that_the_caller_names(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.txt", PIECES)
    path = export(tmp_path / "model.onnx", Stack(FEATURE_STACK, len(PIECES), 23, "NTF"))
    features = FeatureSettings(kind="log_mel", bins=23)
    recognizer = asrkern.load(path, tokens, features)
    assert recognizer.features == features and len(recognizer.predict_audio([speech(0.5)])) == 1
    with pytest.raises(
        ValueError, match=r"model.onnx: features: expected 23 for each frame, .*, received 24"
    ):
        asrkern.load(path, tokens, FeatureSettings(kind="log_mel", bins=24))
    with pytest.raises(ValueError, match=r"features.kind: expected features of several bins, .* 'samples'"):
        asrkern.load(path, tokens, FeatureSettings(kind="samples", hop_seconds=1 / 16000))


def test_a_text_is_aligned(tmp_path: Path, letters: Path) -> None:
    _, path = audio_model(tmp_path)
    found = align(asrkern.load(path, letters), speech(1.0), "a bad, deed")
    assert [word.text for word in found.words] == ["a", "bad,", "deed"]
    soundfile.write(tmp_path / "a.wav", speech(1.0).numpy(), 16000, subtype="FLOAT")
    (tmp_path / "a.txt").write_text("a bad, deed")
    command = ["align", str(path), str(tmp_path / "a.wav"), str(tmp_path / "a.txt")]
    result = CliRunner().invoke(app, [*command, "--tokens", str(letters)])
    assert result.exit_code == 0 and result.stdout.count("\n") >= 3, result.output
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and "take it as --tokens" in " ".join(result.stderr.split())
    with pytest.raises(ValueError, match="text: expected a model with labels of one letter each"):
        write_tokens(letters, ("▁a", "b", "c", "d", "e", "f", "g", "<blk>"))
        align(asrkern.load(path, letters), speech(1.0), "ab")


def test_the_command(tmp_path: Path, letters: Path) -> None:
    _, path = audio_model(tmp_path)
    samples = speech(2.0, seed=6)
    soundfile.write(tmp_path / "a.wav", samples.numpy(), 16000, subtype="FLOAT")
    lm = small_lm(["A", "AB", "BAD", "DA", "E", "C"])
    lm.save(tmp_path / "lm.safetensors")
    (tmp_path / "hotwords.txt").write_text("BAD\t9\n")
    options = [
        "--lm",
        tmp_path / "lm.safetensors",
        "--hotwords",
        tmp_path / "hotwords.txt",
        "--beam-width",
        9,
    ]
    arguments = ["transcribe", path, tmp_path / "a.wav", "--tokens", letters, *options]

    def run(*more: str) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments), *more])
        assert result.exit_code == 0, result.output
        return result.stdout

    recognizer = asrkern.load(path, letters)
    expected = Transcriber(recognizer, lm, beam_width=9, hotwords={"BAD": 9.0}).recording(samples)
    assert expected.text != Transcriber(recognizer, lm, beam_width=9).recording(samples).text
    assert run() == f"{tmp_path / 'a.wav'}\t{expected.text}\n"
    found = json.loads(run("--json"))["words"]
    assert [word["start_seconds"] for word in found] == [word.start_seconds for word in expected.words]
    assert run("--srt").count("-->") >= 1


def test_a_corpus_is_measured(tmp_path: Path, letters: Path) -> None:
    _, path = audio_model(tmp_path)
    recognizer = asrkern.load(path, letters)
    lines, texts = [], []
    for index in range(3):
        samples = speech(1.0 + 0.3 * index, seed=index)
        soundfile.write(tmp_path / f"{index}.wav", samples.numpy(), 16000, subtype="FLOAT")
        texts += recognizer.predict_audio([samples])
        reference = ("a bad cab", "dad", "  bed a cad")[index]
        lines.append({"audio_filepath": f"{index}.wav", "duration": len(samples) / 16000, "text": reference})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    command = ["evaluate", path, manifest, "--tokens", letters, "--json", tmp_path / "found.json"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert [u["hypothesis"] for u in found["utterances"]] == texts
    references = ["A BAD CAB", "DAD", "BED A CAD"]
    edits = [Levenshtein.distance(*pair) for pair in zip(texts, references)]
    assert [u["errors"] for u in found["utterances"]] == edits
    assert found["metrics"]["cer"] == sum(edits) / sum(map(len, references))
    result = CliRunner().invoke(app, [*map(str, command), "--table", str(tmp_path / "table.md")])
    assert result.exit_code == 1 and "received one without a recipe" in result.output


def test_errors_of_the_command(tmp_path: Path, letters: Path) -> None:
    _, path = audio_model(tmp_path)
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 16000)
    result = CliRunner().invoke(app, ["transcribe", str(path), str(tmp_path / "a.wav")])
    assert result.exit_code == 1 and "tokens: expected the file of the labels" in result.output


def changed(tmp_path: Path, **options: Any) -> Path:
    """A model of features, exported otherwise."""
    metadata = {"model_type": "EncDecCTCModel", "normalize_type": "", **options.pop("metadata", {})}
    model = Stack(FEATURE_STACK, len(LETTERS), 80)
    return export(tmp_path / "model.onnx", model, metadata=metadata, **options)


def of_nodes(tmp_path: Path, inputs: list[tuple[str, list[Any]]], output: list[Any]) -> Path:
    """A model that adds up its inputs."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs]
    node = helper.make_node("Sum", [name for name, _ in inputs], ["out"])
    out = helper.make_tensor_value_info("out", kind, output)
    graph = helper.make_graph([node], "sum", values, [out])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(file, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "labels": (
        lambda folder: export(folder / "model.onnx", Stack(AUDIO_STACK, 9)),
        "tokens: expected 9 labels, one for each output of the model, received 8",
    ),
    "no model_type": (
        lambda folder: export(folder / "model.onnx", Stack(FEATURE_STACK, 8, 80)),
        "model_type: expected one of EncDecCTCModel, .*, received None; else give features",
    ),
    "another model_type": (
        lambda folder: changed(folder, metadata={"model_type": "tdnn"}),
        "model_type: expected one of EncDecCTCModel, .*, received 'tdnn'",
    ),
    "normalize_type": (
        lambda folder: changed(folder, metadata={"normalize_type": "all_features"}),
        "normalize_type: expected per_feature or none in the model's metadata, received 'all_features'",
    ),
    "time": (
        lambda folder: changed(folder, dynamic=(0,)),
        r"model: expected a time dimension of any size, received 60 in \['.*', 80, 60\]",
    ),
    "four dimensions": (
        lambda folder: of_nodes(folder, [("x", ["n", 1, 80, "t"])], ["n", 1, 80, "t"]),
        r"model: expected an input of audio \[N, samples\] or features .*, received x: tensor\(float\)",
    ),
    "two inputs": (
        lambda folder: of_nodes(folder, [("x", ["n", "t"]), ("cache", ["n", "t"])], ["n", "t"]),
        r"received x: tensor\(float\) \['n', 't'\]; cache: tensor\(float\) \['n', 't'\]",
    ),
    "output": (
        lambda folder: of_nodes(folder, [("x", ["n", "t"])], ["n", "t"]),
        r"model: expected an output \[N, frames, labels\], received \[1, ",
    ),
    "no ONNX": (
        lambda folder: (folder / "model.onnx").write_bytes(b"no model") and folder / "model.onnx",
        "expected a model that ONNX Runtime reads: ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(tmp_path: Path, letters: Path, name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path))}/model\.onnx: .*{message}"):
        asrkern.load(make(tmp_path), letters)


def test_what_is_missing_is_named(tmp_path: Path, letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = audio_model(tmp_path)
    with pytest.raises(ValueError, match=r"tokens: expected the file of the labels of .*model\.onnx"):
        asrkern.load(path)
    with pytest.raises(FileNotFoundError, match=r"path: expected an ONNX model, received .*absent\.onnx"):
        asrkern.load(tmp_path / "absent.onnx", letters)
    with pytest.raises(ValueError, match=r"tokens: expected none, since a checkpoint has its own, received"):
        asrkern.load(write(tmp_path, make_recognizer("ctc")), letters)
    recognizer = asrkern.load(path, letters)
    with pytest.raises(ValueError, match="device: expected cpu for an ONNX model, received cuda:0"):
        recognizer.move("cuda:0")
    with pytest.raises(
        ValueError, match="model: expected a unidirectional DeepSpeech2 for a stream, received onnx"
    ):
        StreamTranscriber(Transcriber(recognizer, beam_width=3))
    with pytest.raises(ValueError, match=r"recognizer: expected a model of asrkern, received that of .*onnx"):
        save(tmp_path / "copy.safetensors", recognizer)
    with pytest.raises(ValueError, match="lengths: expected at least 70 frames for this model, received 69"):
        recognizer.predict_audio([torch.ones(69)])
    with pytest.raises(ValueError, match="hotwords: expected none, since it is for CTC models"):
        Transcriber(make_recognizer("attention"), hotwords=["A"])
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(ImportError, match=r"onnxruntime is not installed: pip install 'asrkern\[onnx\]'"):
        asrkern.load(path, letters)
