"""An unmodified ``Wav2Vec2ProcessorWithLM`` of transformers, and its pipeline, on asrkern under pyctcdecode's name."""

import importlib
import importlib.util
import json
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch

from asrkern.decoder.compat import BeamSearchDecoderCTC, _install, install_as_pyctcdecode, pyctcdecode
from tests.decoder.models import small_lm

WORDS = ["ab", "a", "b", "abc", "cab", "ba"]
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "|": 2, "a": 3, "b": 4, "c": 5}
ALIASES = ("pyctcdecode", "kenlm")


@pytest.fixture
def without_alias(monkeypatch):
    """sys.modules and importlib.metadata as they were, after the test."""

    def aliases():
        return {
            name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in ALIASES
        }

    before = aliases()
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    aliases()
    sys.modules.update(before)
    _install._finder.names.clear()
    _install._tell_transformers()


@pytest.fixture
def transformers(torchaudio, without_alias):
    """The package. It imports torchaudio, which the fixture of that name makes importable."""
    package = pytest.importorskip("transformers")
    package.utils.logging.set_verbosity_error()
    return package


@pytest.fixture
def folder(transformers, tmp_path):
    """A directory as a processor of transformers 4 has saved it, with a tiny random model."""
    install_as_pyctcdecode()
    (tmp_path / "vocab.json").write_text(json.dumps(VOCABULARY))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "word_delimiter_token": "|"}
    # The alphabet has no <s>.
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), bos_token=None, eos_token=None, **names
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(10, 8), conv_kernel=(10, 8), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    model = transformers.Wav2Vec2ForCTC(config).eval()
    # Louder, so that texts have words.
    model.lm_head.weight.data *= 20
    small_lm(WORDS).to_arpa(tmp_path / "lm.arpa")
    labels = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    decoder = pyctcdecode.build_ctcdecoder(labels, str(tmp_path / "lm.arpa"))
    target = tmp_path / "saved"
    target.mkdir()
    transformers.Wav2Vec2ProcessorWithLM(extractor, tokenizer, decoder).save_pretrained(target)
    model.save_pretrained(target)
    about = {**extractor.to_dict(), "processor_class": "Wav2Vec2ProcessorWithLM"}
    (target / "preprocessor_config.json").write_text(json.dumps(about))
    (target / "processor_config.json").unlink(missing_ok=True)
    return target


def speech(seconds):
    return torch.randn(int(16000 * seconds)).numpy()


def test_processor_and_pipeline(transformers, folder):
    processor = transformers.Wav2Vec2ProcessorWithLM.from_pretrained(str(folder), alpha=0.7)
    decoder = processor.decoder
    assert isinstance(decoder, BeamSearchDecoderCTC) and processor.language_model.alpha == 0.7
    assert type(transformers.AutoProcessor.from_pretrained(str(folder))) is type(processor)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(str(folder)).eval()
    waves = np.stack([speech(0.5) for _ in range(3)])
    inputs = processor(list(waves), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        logits = model(inputs.input_values).logits.numpy()

    def expected(row, **options):
        found = decoder.decode_beams(logits[row], **options)
        offsets = [
            [{"word": w, "start_offset": start, "end_offset": end} for w, (start, end) in beam.text_frames]
            for beam in found
        ]
        return [beam.text for beam in found], offsets, [beam.lm_score for beam in found]

    for options in (
        {},
        {"hotwords": ["cab"], "hotword_weight": 4.0, "beam_width": 20},
        {"beam_prune_logp": -20.0},
    ):
        texts, offsets, scores = expected(0, **options)
        best = processor.decode(logits[0], output_word_offsets=True, **options)
        assert (best.text, best.word_offsets, best.lm_score) == (texts[0], offsets[0], scores[0])
        several = processor.decode(logits[0], output_word_offsets=True, n_best=3, **options)
        assert (several.text, several.word_offsets) == (texts[:3], offsets[:3])
        batch = processor.batch_decode(logits, output_word_offsets=True, n_best=2, **options)
        for row in range(3):
            texts, offsets, scores = expected(row, **options)
            assert batch.text[row] == texts[:2] and batch.word_offsets[row] == offsets[:2]
            assert batch.lm_score[row] == scores[:2]
    assert any(" " in text for text, *_ in batch.text)
    # A pool that has been closed is as good as any.
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(1) as pool:
        pass
    assert processor.batch_decode(logits, pool).text == [expected(row)[0][0] for row in range(3)]
    # Parameters stay changed, as with pyctcdecode.
    before = processor.decode(logits[0]).lm_score
    processor.batch_decode(logits, lm_score_boundary=False, alpha=0.1)
    assert processor.language_model.serializable_attrs["score_boundary"] is False
    assert processor.decode(logits[0]).lm_score != before

    asr = transformers.pipeline("automatic-speech-recognition", model=str(folder))
    assert asr.type == "ctc_with_lm" and isinstance(asr.decoder, BeamSearchDecoderCTC)
    found = asr(waves[0], return_timestamps="word")
    [reference, *_] = asr.decoder.decode_beams(logits[0])
    assert found["text"] == reference.text
    assert [chunk["text"] for chunk in found["chunks"]] == [word for word, _ in reference.text_frames]
    # A pipeline of parts takes any decoder.
    asr = transformers.pipeline(
        "automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor, decoder=decoder,
    )  # fmt: skip
    assert asr(waves[1])["text"] == decoder.decode(logits[1])


def test_a_method_that_5_25_removed(transformers, folder, monkeypatch):
    """from_pretrained calls it, of a class that no longer has it; whichever is loaded first."""
    processor = importlib.import_module(_install._PROCESSOR)
    monkeypatch.delattr(processor.ProcessorMixin, "_get_arguments_from_pretrained")
    with pytest.raises(AttributeError, match="_get_arguments_from_pretrained"):
        transformers.Wav2Vec2ProcessorWithLM.from_pretrained(str(folder))
    install_as_pyctcdecode()
    found = transformers.Wav2Vec2ProcessorWithLM.from_pretrained(str(folder))
    assert [found.tokenizer.convert_tokens_to_ids(token) for token in VOCABULARY] == list(VOCABULARY.values())
    assert isinstance(found.feature_extractor, transformers.Wav2Vec2FeatureExtractor)

    monkeypatch.delattr(processor.ProcessorMixin, "_get_arguments_from_pretrained")
    monkeypatch.delitem(sys.modules, _install._PROCESSOR)
    again = importlib.import_module(_install._PROCESSOR)
    assert again is not processor
    assert isinstance(
        again.Wav2Vec2ProcessorWithLM.from_pretrained(str(folder)).decoder, BeamSearchDecoderCTC
    )


def test_frames_that_hold_the_padding_mark(transformers, folder):
    """transformers drops each frame with a -100.0 in batch_decode, its mark of padding; decode does not."""
    processor = transformers.Wav2Vec2ProcessorWithLM.from_pretrained(str(folder))
    logits = np.full((1, 4, 6), -9.0, np.float32)
    logits[0, range(4), [3, 0, 4, 0]] = 0
    masked = logits.copy()
    masked[..., 5] = -100.0
    assert processor.decode(masked[0]).text == processor.batch_decode(logits).text[0] == "ab"
    assert processor.batch_decode(masked).text == [""]
    # The way round: any other number.
    assert processor.batch_decode(np.where(masked == -100, -99.0, masked)).text == ["ab"]


def test_as_pyctcdecode(transformers, folder):
    """Parity beside the original, each behind the same processor."""
    processor = transformers.Wav2Vec2ProcessorWithLM.from_pretrained(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] in ALIASES]:
        del sys.modules[name]
    sys.meta_path.remove(_install._finder)
    original = pytest.importorskip("pyctcdecode")
    pytest.importorskip("kenlm")
    theirs = transformers.Wav2Vec2ProcessorWithLM.from_pretrained(str(folder))
    assert isinstance(theirs.decoder, original.BeamSearchDecoderCTC)
    processor.decoder = BeamSearchDecoderCTC.load_from_dir(folder, parity=True)
    logits = 3 * torch.randn(4, 15, 6).numpy()
    for options in ({}, {"hotwords": ["cab"], "n_best": 5}, {"lm_score_boundary": False}):
        ours = processor.batch_decode(logits, output_word_offsets=True, **options)
        assert ours == theirs.batch_decode(logits, output_word_offsets=True, **options)
    theirs.decoder.cleanup()


def test_the_alias(without_alias):
    package = install_as_pyctcdecode()
    assert install_as_pyctcdecode() is package is pyctcdecode
    for name in ("pyctcdecode", "pyctcdecode.alphabet", "pyctcdecode.language_model", "pyctcdecode.decoder"):
        assert importlib.import_module(name).__name__ == f"asrkern.decoder.compat.{name}"
        assert importlib.util.find_spec(name) is not None
    from pyctcdecode import BeamSearchDecoderCTC as Alias
    from pyctcdecode.constants import DEFAULT_BEAM_WIDTH

    assert Alias is BeamSearchDecoderCTC and DEFAULT_BEAM_WIDTH == 100
    assert version("pyctcdecode") == "0.5.0" and version("kenlm") and version("numpy") == np.__version__
    sys.modules["pyctcdecode"] = np
    with pytest.raises(RuntimeError, match="pyctcdecode has been imported already"):
        install_as_pyctcdecode()


def test_kenlm_without_kenlm(without_alias, monkeypatch, tmp_path):
    """Its reader of models, as far as users of pyctcdecode need it."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "kenlm" else find_spec(name)
    )
    install_as_pyctcdecode()
    import kenlm

    path = tmp_path / "lm.arpa"
    small_lm(WORDS).to_arpa(path)
    model = kenlm.Model(str(path))
    assert model.order == 3 and "ab" in model and "x" not in model
    assert model.score("a ab") == model.lm.score("a ab")
    assert list(model.full_scores("a x")) == model.lm.full_scores("a x")
    assert model.perplexity("a b") == model.lm.perplexity("a b")
    lm = pyctcdecode.LanguageModel(model, WORDS)
    assert lm._kenlm_model is model.lm and lm._path == path
