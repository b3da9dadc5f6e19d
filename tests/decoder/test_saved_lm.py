"""Files of NGramLM.save: what they keep, and what is found in damaged and foreign ones."""

import json
import random
import struct

import numpy as np
import pytest
import torch

from asrkern.decoder import NGramLM, _saved_lm, ngram_lm

save_file = pytest.importorskip("safetensors.torch").save_file

TEXTS = ["the cat sat", "the fat cat", "a cat sat on the fat cat", "on and on", ""]


@pytest.fixture(params=[False, True], ids=["plain", "quantized"])
def lm(request):
    lm = NGramLM.estimate(TEXTS, 3, discount_fallback=True)
    return lm.quantize() if request.param else lm


@pytest.fixture
def path(lm, tmp_path):
    lm.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def split(path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def join(path, header: dict, data: bytes, padding: int = 0) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) + padding) + text + b" " * padding + data)


def scores(lm):
    return [lm.full_scores(text) for text in [*TEXTS, "unknown words"]]


def test_every_flipped_bit_is_found(lm, path):
    """Or changes nothing: in the header's white space, in names that nobody asks for."""
    content, expected = path.read_bytes(), scores(lm)
    chance = random.Random()
    header = 8 + int.from_bytes(content[:8], "little")
    positions = [*range(0, 8 * header, 13), *chance.sample(range(8 * header, 8 * len(content)), 200)]
    found = 0
    for position in positions:
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            again = NGramLM.load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            found += 1
        else:
            assert position < 8 * header, f"bit {position}"
            assert scores(again) == expected and again.words == lm.words
    assert found > 0.9 * len(positions)


def test_says_that_the_file_is_damaged(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"expected the checksum [0-9a-f]{16}, received [0-9a-f]{16}: the file is damaged"
    ):
        NGramLM.load(path)
    with pytest.raises(ValueError, match="the file is damaged"):
        NGramLM.open(path, verify=True)
    NGramLM.load(path, verify=False)


def test_large_files_are_verified_on_request(path, monkeypatch):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(ngram_lm, "VERIFIED_BYTES", NGramLM.load(path, verify=False).nbytes - 1)
    NGramLM.load(path)
    NGramLM.open(path)
    for load in (NGramLM.load, NGramLM.open):
        with pytest.raises(ValueError, match="the file is damaged"):
            load(path, verify=True)


@pytest.mark.parametrize("padding", range(8))
def test_tensors_of_other_writers_begin_anywhere(lm, path, padding):
    header, data = split(path)
    metadata = header.pop("__metadata__")
    # In another order, too: of what follows the header, and within it.
    names, parts, at = sorted(header, reverse=True), [], 0
    moved = {}
    for name in sorted(names, key=lambda name: name != "strings"):
        begin, end = header[name]["data_offsets"]
        moved[name] = {**header[name], "data_offsets": [at, at + end - begin]}
        parts.append(data[begin:end])
        at += end - begin
    join(path, {**moved, "__metadata__": metadata | {"writer": "another"}}, b"".join(parts), padding)
    again = NGramLM.load(path, verify=True)
    assert scores(again) == scores(lm) and again.words == lm.words
    for tensor in again.tensors.values():
        assert tensor.data_ptr() % tensor.element_size() == 0


def test_tensors_that_are_not_aligned(lm):
    def moved(tensor):
        room = torch.empty(tensor.nbytes + 9, dtype=torch.uint8)
        memory = room.numpy()[1 + (-room.data_ptr()) % 8 :][: tensor.nbytes]
        memory[:] = np.frombuffer(tensor.numpy().tobytes(), np.uint8)
        return torch.from_numpy(memory.view(tensor.numpy().dtype).reshape(tensor.shape))

    tensors = {name: moved(tensor) for name, tensor in lm.tensors.items()}
    assert any(tensor.data_ptr() % 8 for tensor in tensors.values())
    assert scores(NGramLM(tensors, lm.order, lm.bos, lm.eos)) == scores(lm)


def with_strings(lm, path, strings: bytes) -> None:
    """The model's file with another table of words, whose checksum is right."""
    header, data = split(path)
    begin, end = header["strings"]["data_offsets"]
    assert len(strings) == end - begin
    tensors = {**lm.tensors, "strings": torch.frombuffer(bytearray(strings), dtype=torch.uint8)}
    header["__metadata__"]["checksum"] = _saved_lm.checksum(tensors, header["__metadata__"])
    join(path, header, data[:begin] + strings + data[end:])


def test_a_zero_within_a_word_is_no_end_of_it(lm, path):
    with_strings(lm, path, lm.tensors["strings"].numpy().tobytes().replace(b"sat\n", b"s\0t\n"))
    again = NGramLM.load(path, verify=True)
    assert again.words == ["s\0t" if word == "sat" else word for word in lm.words]


@pytest.mark.parametrize("old, new", [(b"sat\n", b"s\nt\n"), (b"sat\n", b"sat ")])
def test_words_that_are_not_as_many_as_the_model_has(lm, path, old, new):
    with_strings(lm, path, lm.tensors["strings"].numpy().tobytes().replace(old, new))
    with pytest.raises(ValueError, match=f"strings: expected {lm.vocabulary_size} words"):
        NGramLM.load(path, verify=True)


def test_words_whose_last_has_no_end(lm, path):
    """As many line feeds as words, one of them within a word, none at the end."""
    strings = lm.tensors["strings"].numpy().tobytes().replace(b"sat\n", b"s\nt\n")
    with_strings(lm, path, strings[:-1] + b"x")
    with pytest.raises(ValueError, match=f"strings: expected {lm.vocabulary_size} words"):
        NGramLM.load(path, verify=True)


def older(path) -> None:
    """The file as releases without checksums wrote it."""
    header, data = split(path)
    del header["__metadata__"]["checksum"]
    header["__metadata__"]["format"] = "asrkern n-gram model 3"
    join(path, header, data)


def test_files_without_checksum(lm, path):
    older(path)
    for verify in (None, False):
        assert scores(NGramLM.load(path, verify=verify)) == scores(lm)
    with pytest.raises(ValueError, match="expected a file with a checksum, received one without"):
        NGramLM.load(path, verify=True)
    NGramLM.load(path).save(path)
    assert scores(NGramLM.load(path, verify=True)) == scores(lm)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1.1e6, 1e-5 - 1.1e6])
@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("table", ["unigrams", "ngrams"])
def test_numbers_beyond_all_sense(lm, path, table, column, value):
    tensors = {name: tensor.clone() for name, tensor in lm.tensors.items()}
    if table == "ngrams" and "codebook" in tensors:
        table = "codebook"
        tensors[table][column, 3] = value
    elif table == "ngrams":
        slots = tensors[table].numpy()
        slots.view(np.float32)[slots[:, 0].nonzero()[0][0], 2 + column] = value
    else:
        tensors[table][2, column] = value
    NGramLM(tensors, lm.order, lm.bos, lm.eos).save(path)
    for make in (lambda path: None, older):
        make(path)
        with pytest.raises(
            ValueError, match=f"{table}: expected log10 probabilities between -1e6 and 0 and back-off"
        ):
            NGramLM.load(path)


def test_tables_that_no_builder_makes(lm, path):
    """In which words have no scores, and searches no end."""
    full = lm.tensors["words"].clone()
    full[:, 0] = torch.arange(len(full)) + 1
    full = full.repeat(3000, 1)
    ids = lm.tensors["words"].clone()
    ids[:, 1] = lm.vocabulary_size
    for words, message in [
        (full, "words: expected a hash table"),
        (ids, f"words: expected ids below {lm.vocabulary_size}, received {lm.vocabulary_size}"),
    ]:
        NGramLM({**lm.tensors, "words": words}, lm.order, lm.bos, lm.eos).save(path)
        with pytest.raises(ValueError, match=message):
            NGramLM.load(path)
    NGramLM({**lm.tensors, "strings": lm.tensors["strings"][6:].clone()}, lm.order, lm.bos, lm.eos).save(path)
    with pytest.raises(ValueError, match=f"strings: expected {lm.vocabulary_size} words, received"):
        NGramLM.load(path)


@pytest.mark.parametrize("name", ["order", "bos", "eos"])
@pytest.mark.parametrize(
    "value", ["9" * 30, "9" * 5000, "-1", "1.0", "1e3", "", " 1", "1_0", "١", "one", "9999999999"]
)
def test_numbers_in_the_metadata(path, name, value):
    header, data = split(path)
    header["__metadata__"][name] = value
    join(path, header, data)
    with pytest.raises(ValueError, match=rf"model\.safetensors: {name}: expected "):
        NGramLM.load(path)


def test_damaged_headers(lm, path):
    for size in (0, 7, 100, path.stat().st_size - 1):
        cut = path.with_name("cut.safetensors")
        cut.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"cut\.safetensors: expected an intact safetensors file"):
            NGramLM.load(cut)
    header, data = split(path)
    metadata = header.pop("__metadata__")
    for wrong, message in [
        (None, "expected 'asrkern n-gram model 4', received None"),
        ({"format": "asrkern n-gram model 1"}, "received 'asrkern n-gram model 1': save the model anew"),
        ({**metadata, "format": "pt"}, "received 'pt'"),
        (
            {name: value for name, value in metadata.items() if name != "checksum"},
            "received 'asrkern n-gram model 4'",
        ),
        ({**metadata, "unit": "letter"}, "unit: expected one of"),
        ({**metadata, "space": ""}, "space: expected a text"),
        ({**metadata, "space": "_"}, "the file is damaged"),
        ({**metadata, "order": "2"}, "the file is damaged"),
        ({**metadata, "checksum": "zz"}, "expected the checksum zz, received"),
        ({**metadata, "bos": "9"}, "the file is damaged"),
    ]:
        join(path, {**header, **({} if wrong is None else {"__metadata__": wrong})}, data)
        with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
            NGramLM.load(path)
    for name in lm.tensors:
        save_file({key: tensor for key, tensor in lm.tensors.items() if key != name}, path, metadata)
        with pytest.raises(
            ValueError, match="ngrams: expected" if name == "codebook" else f"received no {name}"
        ):
            NGramLM.load(path)
        save_file({**lm.tensors, name: lm.tensors[name].to(torch.bfloat16)}, path, metadata)
        with pytest.raises(
            ValueError, match=f"{name}: expected {str(lm.tensors[name].dtype)[6:]}, received BF16"
        ):
            NGramLM.load(path)


def test_the_kind_is_told_by_the_content(lm, path):
    other = path.rename(path.with_name("model.bin"))
    assert scores(NGramLM.open(other)) == scores(lm)
    with pytest.raises(IsADirectoryError):
        NGramLM.open(other.parent)
    with pytest.raises(FileNotFoundError):
        NGramLM.open(path)
