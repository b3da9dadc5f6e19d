"""NGramLM: files, scores, states. The truth is asrkern.reference.ngram and, where installed, the kenlm package."""

import gzip
import math
import os
import pickle
import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkern.decoder import NGramLM, WordScore
from asrkern.reference import ngram as reference

MODELS = ["lj3k.o3", "lj3k.o4p"]
# Written by hand: n-grams whose beginnings or ends are not in the model, missing back-offs, CRLF, no <unk>, a comment.
ODD = """# a comment
\\data\\
ngram 1=6
ngram 2 = 4
ngram 3=2

ngram 4=1
\\1-grams:
-99\t<s>\t-0.3
-1.5\t</s>
-0.8 a -0.2
-0.9\tb\t0.1
-1e0\tc\r
-2\td\t-0.7

\\2-grams:
-0.4\t<s> a\t-0.1
-0.5\ta b\t0
-0.6\tb c
-0.35\td d\t-0.25
\\3-grams:
-0.2\tb a c\t-0.05
-0.15\ta b c
\\4-grams:
-0.05\td c d a
\\end\\

"""


@pytest.fixture
def odd(tmp_path):
    path = tmp_path / "odd.arpa"
    path.write_text(ODD)
    return path


@pytest.fixture(scope="session")
def sentences(data_dir):
    """None of the models' training text."""
    return (data_dir / "lm" / "lj.txt").read_text().splitlines()[3000:3400]


@pytest.fixture(scope="session", params=MODELS)
def arpa(request, data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("arpa") / f"{request.param}.arpa"
    path.write_bytes(gzip.decompress((data_dir / "lm" / f"{request.param}.arpa.gz").read_bytes()))
    return path


def assert_same_scores(actual: list[WordScore], expected: list[float]) -> None:
    assert [score.log_prob for score in actual] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("eos", [False, True])
def test_equals_the_reference(arpa, sentences, bos, eos):
    lm, model = NGramLM.from_arpa(arpa), reference.read_arpa(arpa)
    for sentence in [*sentences[:100], "", "zzzz the zzzz"]:
        expected = reference.score(model, sentence.split(), bos, eos)
        assert_same_scores(lm.full_scores(sentence, bos, eos), expected)
        assert lm.score(sentence, bos, eos) == pytest.approx(math.fsum(expected), abs=1e-4)


def test_equals_kenlm(arpa, sentences):
    kenlm = pytest.importorskip("kenlm")
    lm, peer = NGramLM.from_arpa(arpa), kenlm.Model(str(arpa))
    assert lm.order == peer.order
    totals = lm.score_batch(sentences)
    for sentence, total in zip(sentences, totals.tolist()):
        assert total == pytest.approx(peer.score(sentence), abs=1e-3)
        for bos, eos in [(True, True), (False, False)]:
            actual, expected = lm.full_scores(sentence, bos, eos), list(peer.full_scores(sentence, bos, eos))
            assert [score[1:] for score in actual] == [score[1:] for score in expected]
            assert_same_scores(actual, [score[0] for score in expected])
    assert lm.perplexity(sentences[0]) == pytest.approx(peer.perplexity(sentences[0]), rel=1e-4)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "<unk>"]), max_size=12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_odd_files_score_as_the_reference(tmp_path_factory, words, bos):
    path = tmp_path_factory.getbasetemp() / "odd.arpa"
    path.write_text(ODD)
    lm, model = NGramLM.from_arpa(path), reference.read_arpa(path)
    assert lm.order == 4 and lm.words == ["<unk>", "<s>", "</s>", "a", "b", "c", "d"]
    assert_same_scores(lm.full_scores(" ".join(words), bos), reference.score(model, words, bos))


def test_batches_equal_single_sentences(arpa, sentences):
    lm = NGramLM.from_arpa(arpa)
    texts = ["", *sentences[:50], "", " ".join(sentences[50:90]), "  the   of\tin ", ""]
    for bos in (True, False):
        for eos in (True, False):
            totals = lm.score_batch(texts, bos, eos)
            assert totals.dtype == torch.float64 and totals.shape == (len(texts),)
            assert totals.tolist() == [lm.score(text, bos, eos) for text in texts]
    assert lm.score_batch([]).shape == (0,)
    assert lm.score("", bos=True, eos=False) == 0
    words = sum(len(text.split()) + 1 for text in texts)
    assert lm.perplexity(texts) == pytest.approx(10 ** (-lm.score_batch(texts).sum().item() / words))


def test_word_scores_say_where_they_come_from(odd):
    lm = NGramLM.from_arpa(odd)
    assert lm.full_scores("a x", eos=False) == [
        WordScore(pytest.approx(-0.4), 2, False),
        WordScore(pytest.approx(-100 - 0.1 - 0.2, rel=1e-6), 1, True),
    ]


def test_gzip(arpa, sentences, tmp_path):
    path = tmp_path / "model.arpa.gz"
    path.write_bytes(gzip.compress(arpa.read_bytes()))
    assert (
        NGramLM.from_arpa(path).score_batch(sentences).equal(NGramLM.from_arpa(arpa).score_batch(sentences))
    )


def test_save_and_load(arpa, sentences, tmp_path):
    lm, path = NGramLM.from_arpa(arpa), tmp_path / "model.safetensors"
    lm.save(path)
    for again in (NGramLM.load(path), NGramLM.open(path), pickle.loads(pickle.dumps(lm)), lm.to("cpu")):
        assert (again.order, again.words, again.bos, again.eos) == (lm.order, lm.words, lm.bos, lm.eos)
        assert again.score_batch(sentences).equal(lm.score_batch(sentences))
    characters = NGramLM.estimate(["ab b"], 2, unit="character", space="|", discount_fallback=True)
    characters.save(path)
    again = NGramLM.load(path)
    assert (again.unit, again.space) == ("character", "|") and again.score("b a") == characters.score("b a")


def test_saving_is_whole_or_not_at_all(odd, sentences, tmp_path):
    lm, path = NGramLM.from_arpa(odd), tmp_path / "model.safetensors"
    lm.save(path)
    os.umask(umask := os.umask(0))
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    mapped = NGramLM.load(path)
    expected = mapped.score_batch(sentences)
    for other in (mapped, mapped.quantize()):
        other.save(path)  # over the file that a model is mapped from
        assert mapped.score_batch(sentences).equal(expected)
        assert NGramLM.load(path).score_batch(sentences).equal(other.score_batch(sentences))
    (tmp_path / "link.safetensors").symlink_to(path)
    lm.save(tmp_path / "link.safetensors")
    assert path.stat().st_size == (tmp_path / "link.safetensors").stat().st_size
    assert (tmp_path / "link.safetensors").is_symlink()
    estimated = NGramLM.estimate(["a b", "b a a"], 2, discount_fallback=True)
    for write in (lm.save, estimated.to_arpa):
        with pytest.raises(OSError):
            write(tmp_path)
        with pytest.raises(OSError):
            write(tmp_path / "absent" / "model")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "link.safetensors", "model.safetensors", "odd.arpa",
    ]  # fmt: skip


@pytest.mark.parametrize("quantized", [False, True])
def test_tensors_that_are_shared_with_other_processes(odd, sentences, tmp_path, quantized):
    """torch moves their memory, in place."""
    for lm in (NGramLM.from_arpa(odd), NGramLM.estimate(sentences, 3)):
        lm = lm.quantize() if quantized else lm
        lm.save(tmp_path / "model.safetensors")
        for model in (lm, NGramLM.load(tmp_path / "model.safetensors")):
            expected, state = model.score_batch(sentences), model.start()
            for tensor in model.tensors.values():
                tensor.share_memory_()
            assert model.score_batch(sentences).equal(expected)
            assert model.score(sentences[0]) == expected[0] and model.step(state, "a")[1] != state


@pytest.mark.numbers
def test_loading_maps_the_file(tmp_path):
    """The tables' pages are the file's: loading them takes no memory of the process."""
    model = NGramLM.estimate(
        [" ".join(map(str, range(i, i + 40))) for i in range(0, 300_000, 20)], 4, discount_fallback=True
    )
    model.save(tmp_path / "model.safetensors")
    code = (
        "import sys\nfrom asrkern.decoder import NGramLM\n"
        "def private(): return sum(int(line.split()[1]) for line in open('/proc/self/smaps_rollup') if line.startswith('Anonymous'))\n"
        "import safetensors.torch\nbefore = private()\n"
        "lm = NGramLM.load(sys.argv[1]); lm.score('1 2 3')\n"
        "print(lm.nbytes // 1024, private() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    tables_kib, used_kib = map(int, run.stdout.split())
    assert tables_kib > 30_000 and used_kib < tables_kib / 10


def test_quantized(arpa, sentences, tmp_path):
    lm = NGramLM.from_arpa(arpa)
    small = lm.quantize()
    assert small.tensors["ngrams"].nbytes * 2 == lm.tensors["ngrams"].nbytes
    assert small.quantize() is small and "quantized" in repr(small)
    differences = []
    for sentence in sentences:
        exact, rounded = lm.full_scores(sentence), small.full_scores(sentence)
        # The same n-grams are found, so only their values differ.
        assert [score[1:] for score in exact] == [score[1:] for score in rounded]
        differences += [abs(a.log_prob - b.log_prob) for a, b in zip(exact, rounded)]
    assert 0 < max(differences) < 0.05 and sum(differences) / len(differences) < 0.01
    assert small.perplexity(sentences) == pytest.approx(lm.perplexity(sentences), rel=0.005)
    small.save(tmp_path / "small.safetensors")
    again = NGramLM.load(tmp_path / "small.safetensors")
    assert again.score_batch(sentences).equal(small.score_batch(sentences))


def test_one_value_far_off_costs_quantized_models_nothing(arpa, sentences, tmp_path):
    with gzip.open(arpa, "rt") if str(arpa).endswith(".gz") else open(arpa) as file:
        lines = file.read().splitlines()
    at = lines.index("\\2-grams:") + 1
    lines[at] = "-99\t" + lines[at].split("\t", 1)[1]
    (tmp_path / "far.arpa").write_text("\n".join(lines) + "\n")
    lm = NGramLM.from_arpa(tmp_path / "far.arpa")
    small = lm.quantize()
    differences = [
        abs(a.log_prob - b.log_prob)
        for sentence in sentences
        for a, b in zip(lm.full_scores(sentence), small.full_scores(sentence))
    ]
    assert max(differences) < 0.06 and sum(differences) / len(differences) < 0.011
    words = lines[at].split("\t")[1].split()
    if words[0] != "<s>":
        assert small.score(" ".join(words), bos=False, eos=False) < -98


def test_quantized_is_exact_with_few_values(odd):
    lm = NGramLM.from_arpa(odd)
    for text in ("a b c", "d c d a", "b a c d d", "e"):
        assert lm.quantize().full_scores(text) == lm.full_scores(text)


def test_vocabulary(odd):
    lm = NGramLM.from_arpa(odd)
    assert lm.vocabulary_size == 7 and (lm.bos, lm.eos) == (1, 2)
    assert [lm.word_id(word) for word in lm.words] == list(range(7))
    assert lm.word_id("x") == lm.word_id("") == 0
    assert lm.encode(" a\tx  d") == [3, 0, 6]
    assert "order=4" in repr(lm)


def test_models_of_characters(odd, tmp_path):
    odd.write_text(ODD.replace("d", "|").replace("\\|ata\\", "\\data\\").replace("en|", "end"))
    lm = NGramLM.from_arpa(odd, unit="character", space="|")
    assert lm.encode(" ab  éc ") == [3, 4, 6, 0, 5]
    words = NGramLM.from_arpa(odd)
    assert lm.score("ab  c") == words.score("a b | c")


def random_walk(lm, words, bos=True):
    state, scores = lm.start(bos), []
    for word in words:
        log_prob, state = lm.step(state, word)
        scores.append(log_prob)
    return state, scores


def assert_steps_equal_batches(lm, texts):
    """Bit for bit: batches take another way through the tables, of another layout where quantised."""
    for model in (lm, lm.quantize()):
        for bos in (True, False):
            walks = [random_walk(model, [*text.split(), model.eos], bos)[1] for text in texts]
            assert [[s.log_prob for s in model.full_scores(text, bos)] for text in texts] == walks
            assert model.score_batch(texts, bos).tolist() == [sum(walk) for walk in walks]


def test_steps_equal_sentences(arpa, sentences):
    assert_steps_equal_batches(NGramLM.from_arpa(arpa), [*sentences[:60], "", " ".join(sentences[60:90])])


@pytest.mark.parametrize("order", range(1, 7))
def test_steps_equal_batches_in_every_order(order):
    chance = random.Random(order)
    texts = [" ".join(chance.choices("abcdefgh", k=chance.randint(0, 30))) for _ in range(90)]
    lm = NGramLM.estimate(texts[:60], order, prune=(0, 0, 1)[:order], discount_fallback=True)
    assert_steps_equal_batches(lm, [*texts, " ".join([*texts, "x", *texts]), "x a x"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=8), min_size=2, max_size=12),
    st.lists(st.sampled_from("abcx"), max_size=6),
    st.lists(st.sampled_from("abcx"), max_size=6),
    st.lists(st.sampled_from("abcx"), min_size=1, max_size=8),
)
def test_equal_states_have_equal_futures_and_only_they(texts, first, second, future):
    lm = NGramLM.estimate(map(" ".join, texts), 4, prune=(0, 0, 1), discount_fallback=True)
    (a, _), (b, _) = random_walk(lm, first), random_walk(lm, second)
    assert (a == b) == (a.words == b.words)
    assert a != b or hash(a) == hash(b)
    # What follows is told by the words that the state keeps, in any context before them.
    kept, _ = random_walk(lm, a.words[::-1], bos=False) if lm.bos not in a.words else (a, None)
    assert kept == a and pickle.loads(pickle.dumps(a)) == a
    scores = []
    for state in (a, kept) + ((b,) if a == b else ()):
        total = []
        for word in future:
            log_prob, state = lm.step(state, word)
            total.append(log_prob)
        scores.append(total)
    assert all(total == scores[0] for total in scores)


def test_states_keep_no_word_in_vain(arpa, sentences):
    """The words of a state are an n-gram that a longer one begins with, or that has a weight."""
    lm, model = NGramLM.from_arpa(arpa), reference.read_arpa(arpa)
    words, contexts = lm.words, {ngram[:-1] for ngram in model}
    lengths = set()
    for sentence in sentences[:100]:
        state = lm.start()
        history = ["<s>"]
        for word in sentence.split():
            _, state = lm.step(state, word)
            history.append(word if (word,) in model else "<unk>")
            useful = [
                n
                for n in range(1, lm.order)
                if (ngram := tuple(history[-n:])) in contexts or model.get(ngram, (0, 0))[1] != 0
            ]
            assert [words[i] for i in state.words] == history[::-1][: max(useful, default=0)]
            lengths.add(len(state.words))
    assert lengths == set(range(lm.order))


def bad(old: str, new: str) -> str:
    assert ODD.count(old) == 1
    return ODD.replace(old, new)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"line 0: expected \\data\\, received the end of the file: this is no ARPA file"),
        ("hello\n" * 3, r"line 3: expected \\data\\"),
        (bad("ngram 2 = 4", "ngram 2 = x"), "line 4: expected 'ngram ORDER=COUNT', received 'ngram 2 = x'"),
        (bad("ngram 2 = 4", "ngram 2"), "line 4: expected 'ngram ORDER=COUNT', received 'ngram 2'"),
        (bad("ngram 2 = 4", "ngram 2=-4"), "line 4: expected 'ngram ORDER=COUNT'"),
        (bad("ngram 2 = 4", "ngram 3=4"), "line 4: expected the count of order 2, received 'ngram 3=4'"),
        (bad("ngram 4=1", "ngram 4=1\nngram 5=0\nngram 6=0\nngram 7=0"), "line 10: expected orders up to 6"),
        (bad("ngram 2 = 4", "ngram 2=5"), "line 21: expected 5 2-grams, as .* announces, received 4"),
        (bad("ngram 2 = 4", "ngram 2=3"), "line 20: expected 3 2-grams, .* another: '-0.35\td d"),
        (bad("ngram 2 = 4", "ngram 2=99999999999999999"), "line 21: expected 99999999999999999 2-grams"),
        (bad("ngram 2 = 4", "ngram 2=99999999999999999999"), "line 4: expected 'ngram ORDER=COUNT'"),
        (bad("\\2-grams:", "\\3-grams:"), r"line 16: expected \\2-grams:, received '\\3-grams:'"),
        (bad("\\4-grams:\n-0.05\td c d a\n", ""), r"line 24: expected \\4-grams:, received '\\end\\'"),
        (bad("\\end\\", "\\5-grams:"), r"line 26: expected \\end\\, received '\\5-grams:'"),
        (bad("\\end\\\n", ""), r"line 26: expected \\end\\, received the end of the file: it is cut short"),
        (ODD[: ODD.index("-0.6")], r"line 18: expected \\end\\, received the end of the file"),
        (ODD + "more", r"line 28: expected nothing after \\end\\, received 'more'"),
        (bad("-0.6\tb c", "-0.6x\tb c"), "line 19: expected a log10 probability, received '-0.6x'"),
        (bad("-0.6\tb c", "nan\tb c"), "line 19: expected a log10 probability, received 'nan'"),
        (bad("-0.6\tb c", "-1e7\tb c"), "line 19: expected a log10 probability of at least -1e6"),
        (bad("-0.6\tb c", "-1e39\tb c"), "line 19: expected a log10 probability, received '-1e39'"),
        (bad("-2\td\t-0.7", "-2\td\t100"), "line 14: expected a back-off weight between -1e6 and 99"),
        (bad("-2\td\t-0.7", "-2\td\tinf"), "line 14: expected a probability, 1 words and a back-off weight"),
        (bad("-0.6\tb c", "0.6\tb c"), "line 19: expected a log10 probability of at most 0, received '0.6'"),
        (bad("-0.6\tb c", "-0.6\tb"), "line 19: expected 2 words, received '-0.6\tb'"),
        (bad("-0.6\tb c", "-0.6\tb zz"), "line 19: expected words that are among the 1-grams, received 'zz'"),
        (bad("-0.6\tb c", "-0.6\tb c d"), "line 19: expected a probability, 2 words and a back-off weight"),
        (
            bad("-0.6\tb c", "-0.6\tb c -1 -1"),
            "line 19: expected a probability, 2 words and a back-off weight",
        ),
        (
            bad("-0.05\td c d a", "-0.05\td c d a\t-1"),
            "line 25: expected no back-off weight .* received '-1'",
        ),
        (bad("-1.5\t</s>", "-1.5\te"), "line 16: expected </s> among the 1-grams, received none"),
    ],
)
def test_bad_files(odd, text, message):
    odd.write_text(text, newline="")
    with pytest.raises(ValueError, match=rf"odd\.arpa: {message}"):
        NGramLM.from_arpa(odd)


def test_a_byte_order_mark_is_no_text(odd, tmp_path):
    (tmp_path / "marked.arpa").write_bytes(b"\xef\xbb\xbf" + odd.read_bytes().removeprefix(b"# a comment\n"))
    assert NGramLM.from_arpa(tmp_path / "marked.arpa").score("a b c") == NGramLM.from_arpa(odd).score("a b c")


def test_bad_bytes(odd, tmp_path):
    odd.write_bytes(ODD.encode().replace(b"-0.6\tb c", b"-0.6\tb \xff\xfe"))
    with pytest.raises(ValueError, match=r"line 19: .* received '\\xff\\xfe'"):
        NGramLM.from_arpa(odd)
    packed = gzip.compress(ODD.encode())
    for broken in (packed[:-20], packed[:30] + b"\0\0\0\0" + packed[34:], b"no gzip"):
        (tmp_path / "odd.arpa.gz").write_bytes(broken)
        with pytest.raises(ValueError, match=r"odd\.arpa\.gz: "):
            NGramLM.from_arpa(tmp_path / "odd.arpa.gz")
    with pytest.raises(FileNotFoundError):
        NGramLM.from_arpa(tmp_path / "absent.arpa")


@pytest.mark.filterwarnings("ignore:.*damaged.arpa")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_never_crash(tmp_path_factory, data):
    text = bytearray(ODD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.getbasetemp() / "damaged.arpa"
    path.write_bytes(text)
    try:
        lm = NGramLM.from_arpa(path)
    except ValueError as error:
        assert "damaged.arpa: " in str(error)
    else:
        assert math.isfinite(lm.score("a b c d d"))


def test_damaged_tables(odd):
    lm = NGramLM.from_arpa(odd)
    tensors = lm.tensors
    for wrong, message in [
        ({"unigrams": tensors["unigrams"].double()}, "unigrams: expected a contiguous array of float32"),
        ({"unigrams": tensors["unigrams"][:0]}, "unigrams: expected a contiguous array of float32"),
        ({"ngrams": tensors["ngrams"][:, 0]}, "ngrams: expected a contiguous array of int64"),
        ({"ngrams": tensors["ngrams"][1:]}, "ngrams: expected a multiple of 4 slots, received"),
        ({"words": tensors["words"][:0]}, "words: expected a contiguous array of int64"),
        ({"words": tensors["words"][:3]}, "words: expected a multiple of 4 slots, received 3"),
        ({"words": tensors["words"].int()}, "words: expected a contiguous array of int64"),
        ({"codebook": torch.zeros(256)}, "codebook: expected a contiguous array of float32"),
        ({"unigrams": tensors["unigrams"].bfloat16()}, "unigrams: expected a contiguous array of float32"),
        ({"strings": tensors["strings"].int()}, "strings: expected a contiguous array of uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            NGramLM({**tensors, **wrong}, lm.order, lm.bos, lm.eos)
    for order, bos, message in [
        (7, 1, "order: expected 1 to 6, received 7"),
        (0, 1, "order: expected 1 to 6, received 0"),
        (10**12, 1, "order: expected 1 to 6, received 1000000000000"),
        (4, 7, "bos: expected an id between 0 and 6, received 7"),
        (4, 2**40, "bos: expected an id between 0 and 6, received 1099511627776"),
    ]:
        with pytest.raises(ValueError, match=message):
            NGramLM(tensors, order, bos, lm.eos)
    with pytest.raises(ValueError, match="received no strings"):
        NGramLM({name: tensors[name] for name in ("unigrams", "ngrams", "words")}, 4, 1, 2)
    # Full tables, and ids that are not there, are only wrong.
    noise = {name: torch.randint_like(tensors[name], 1, 2**62) for name in ("ngrams", "words")}
    assert NGramLM({**tensors, **noise}, 4, 1, 2).encode("a b") == [0, 0]


def test_bad_arguments(odd):
    lm = NGramLM.from_arpa(odd)
    with pytest.raises(TypeError, match="sentences: expected a string, received <class 'int'>"):
        lm.score_batch(["a", 3])
    with pytest.raises(ValueError, match="word: expected an id between 0 and 6, received 7"):
        lm.step(lm.start(), 7)
    with pytest.raises(ValueError, match="word: expected an id between 0 and 6, received -1"):
        lm.step(lm.start(), -1)
    with pytest.raises(ValueError, match="unit: expected one of"):
        NGramLM.from_arpa(odd, unit="letters")
    for space in ("", " ", "a b", "\0", "a\0b"):
        with pytest.raises(ValueError, match="space: expected a text without white space"):
            NGramLM.from_arpa(odd, unit="character", space=space)
    for call, name in (
        (lm.score, "sentence"),
        (lm.full_scores, "sentence"),
        (lm.encode, "sentence"),
        (lm.word_id, "word"),
    ):
        with pytest.raises(TypeError, match=f"{name}: expected a string, received <class 'bytes'>"):
            call(b"a")
    with pytest.raises(TypeError, match="sentences: expected several of them, received the string 'a b'"):
        lm.score_batch("a b")
    assert lm.score_batch(text for text in ("a", "b")).tolist() == [lm.score("a"), lm.score("b")]
    with pytest.raises(ValueError, match="sentences: expected at least one, received none"):
        lm.perplexity([])
    assert lm.start() != None and lm.start() not in [None, 3]  # noqa: E711
    elsewhere = lm.to("meta")
    assert elsewhere.tensors["ngrams"].device.type == "meta"
    with pytest.raises(ValueError, match="expected tables on the CPU, received them on meta"):
        elsewhere.score("a")


@pytest.mark.gpu
def test_moves_between_devices(odd):
    lm = NGramLM.from_arpa(odd)
    there = lm.to("cuda")
    assert all(tensor.is_cuda for tensor in there.tensors.values())
    assert there.quantize().to("cpu").score("a b c") == lm.quantize().score("a b c")
    assert there.to("cpu").score("a b c") == lm.score("a b c")


def test_says_what_saving_needs(odd, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (NGramLM.from_arpa(odd).save, NGramLM.load):
        with pytest.raises(ImportError, match=r"safetensors is not installed: pip install 'asrkern\[lm\]'"):
            call(tmp_path / "m.safetensors")
