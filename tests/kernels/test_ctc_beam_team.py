"""The CUDA beam search's algorithm, run by teams of threads on the CPU, against the CPU's own."""

import json
import os
import random
import signal
import subprocess

import numpy as np
import pytest
import torch

from asrkern import ops
from asrkern.decoder import CTCBeamDecoder, NGramLM
from tests.decoder.contexts import CONTEXTS, LETTERS, PIECES, make_decoder
from tests.decoder.models import random_log_probs, small_lm
from tests.kernels import team_search
from tests.kernels.gru_host import SM_80, SM_90


@pytest.fixture
def program(team_program):
    return team_program


def assert_same(found, expected):
    """To the last bit, but for the confidences, whose sums are in another order."""
    assert torch.equal(found.errors, expected.errors)
    for name in ("token_lengths", "scores", "am_scores", "tokens", "timesteps", "words"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        # Beyond the lengths too, where both write the same.
        assert torch.equal(ours, theirs), (name, ours, theirs)
    assert (found.confidences - expected.confidences).abs().max() < 1e-6


def compare(program, decoder, log_probs, lengths=None, *, threads, block=False, tree_room=0, **options):
    options = {**decoder._options, **options}
    expected = ops.ctc_beam_search(log_probs, lengths, context=decoder.context, **options)
    team = {"threads": threads, "block": block, "tree_room": tree_room}
    found = team_search.search(program, log_probs, lengths, context=decoder.context, **team, **options)
    assert_same(found, expected)
    return found


@pytest.mark.parametrize(
    "context, labels",
    # A model of characters is of letters.
    [(c, labels) for c in CONTEXTS for labels in (LETTERS, PIECES) if (c, labels) != ("characters", PIECES)],
)
@pytest.mark.parametrize("beam_width, threads", [(1, 2), (4, 0), (30, 5)])
def test_equals_the_cpu(program, context, labels, beam_width, threads):
    decoder = make_decoder(labels, beam_width=beam_width, nbest=beam_width, **CONTEXTS[context])
    log_probs = random_log_probs(3, 40, len(labels), sharpness=1.5)
    compare(program, decoder, log_probs, torch.tensor([40, 0, 23]), threads=threads)


@pytest.mark.parametrize(
    "vocabulary, beam_width, options",
    [
        (5, 1, {}),
        (29, 33, {"token_min_logp": -3.0}),
        (29, 100, {"beam_prune_logp": -6.0}),
        (128, 20, {"top_tokens": 7, "blank": 64}),
        (130, 50, {"blank": 129}),
        (12, 20, {"blank_penalty": 1.5, "top_tokens": 1}),
        (9, 15, {"token_min_logp": 0.0, "log_add": False}),
        (2, 3, {"blank": 1}),
        (1, 2, {}),
    ],
)
def test_options(program, vocabulary, beam_width, options):
    context = ops.CTCContext(torch.zeros(vocabulary, dtype=torch.uint8))
    log_probs = random_log_probs(2, 25, vocabulary)
    options = {"beam_width": beam_width, "nbest": min(beam_width, 5), "context": context, **options}
    expected = ops.ctc_beam_search(log_probs, **options)
    assert_same(team_search.search(program, log_probs, threads=3, **options), expected)


# Up to 64 tokens each is a bit, in words of 32.
@pytest.mark.parametrize("vocabulary", [31, 32, 33, 34, 63, 64, 65, 66, 97])
@pytest.mark.parametrize("context", ["phrases", "words", "words and phrases"])
def test_vocabularies_around_words_of_bits(program, vocabulary, context):
    labels = ["-", *map(chr, range(0x4E00, 0x4E00 + vocabulary - 2)), " "]
    chance = random.Random(vocabulary)

    def made(count):
        return sorted({"".join(chance.choices(labels[1:-1], k=chance.randint(1, 4))) for _ in range(count)})

    options = {}
    if context != "words":
        phrases = [*made(200), *(f"{a} {b}" for a, b in zip(made(50), made(50)))]
        options["hotwords"] = {phrase: chance.uniform(-2, 6) for phrase in phrases}
    if context != "phrases":
        options |= {"lexicon": made(300), "lm": small_lm(made(300)), "unk_score": -3.0}
    decoder = CTCBeamDecoder(labels, blank=0, beam_width=40, nbest=40, **options)
    compare(program, decoder, random_log_probs(2, 30, vocabulary, sharpness=2.5), threads=4)


@pytest.mark.parametrize(
    "vocabulary, beam_width", [(7, 3), (7, 90), (40, 3), (40, 25), (40, 90), (64, 50), (70, 90)]
)
def test_equals_are_kept_alike(program, vocabulary, beam_width):
    """Scores that are whole numbers: most prefixes have the score of others, and the beam's edge runs through them."""
    labels = ["-", *map(chr, range(0x4E00, 0x4E00 + vocabulary - 2)), " "]
    chance = random.Random(beam_width)
    words = ["".join(chance.choices(labels[1:6], k=2)) for _ in range(12)]
    decoder = CTCBeamDecoder(
        labels, blank=0, hotwords=dict.fromkeys(words, 2.0), beam_width=beam_width, nbest=beam_width
    )
    log_probs = -torch.randint(0, 4, (3, 25, vocabulary)).float()
    compare(program, decoder, log_probs, threads=3, check_normalized=False, log_add=False)


@pytest.mark.parametrize("lm", [None, "lj3k.o3.arpa.gz"])
def test_speech(program, data_dir, lm):
    folder = data_dir / "decoder_oracles"
    about = json.loads((folder / "libri_371x29.json").read_text())
    log_probs = torch.from_numpy(np.load(folder / "libri_371x29.npz")["log_probs"]).float()[None]
    lm = None if lm is None else NGramLM.from_arpa(data_dir / "lm" / lm)
    hotwords = None if lm is None else ["good deal", "remember"]
    decoder = CTCBeamDecoder(
        about["labels"], lm, blank=about["blank"], beam_width=16, nbest=16, hotwords=hotwords
    )
    compare(program, decoder, log_probs, threads=2)
    if lm is None:
        lexicon = [word for word in about["expected"]["pyctcdecode_default_no_lm"].split()]
        decoder = CTCBeamDecoder(
            about["labels"], lexicon=lexicon, blank=about["blank"], beam_width=16, nbest=3
        )
        compare(program, decoder, log_probs, threads=1)


def test_words_of_one_spelling(program):
    labels = ["-", "|", "r", "e", "d", "ea"]
    lexicon = {"red": [["r", "e", "d", "|"]], "read": [["r", "ea", "d", "|"], ["r", "e", "d", "|"]]}
    lexicon |= {f"word {i}": [["e", "d"]] for i in range(6)}
    decoder = CTCBeamDecoder(labels, small_lm(["read", "red"]), lexicon, beam_width=20, nbest=20)
    for threads in (0, 4):
        compare(program, decoder, random_log_probs(3, 30, 6, sharpness=1.0), threads=threads)


def test_bad_rows_and_lengths(program):
    context = ops.CTCContext(torch.zeros(5, dtype=torch.uint8))
    log_probs = random_log_probs(8, 6, 5)
    good = log_probs.clone()
    for row, value in {1: float("nan"), 2: -torch.inf, 3: 0.2, 4: 3.0}.items():
        log_probs[row, 4] = value
    lengths = torch.tensor([6, 5, 6, 6, 6, 7, -1, 2])
    options = {"beam_width": 7, "nbest": 2, "context": context}
    found = team_search.search(program, log_probs, lengths, threads=3, **options)
    assert found.errors.tolist() == [[0, -1], [1, 4], [2, 4], [3, 4], [4, 4], [6, -1], [6, -1], [0, -1]]
    expected = ops.ctc_beam_search(good, lengths.clamp(0, 6), **options)
    for row in range(8):
        if found.errors[row, 0]:
            assert (found.token_lengths[row] == -1).all() and (found.tokens[row] == -1).all()
        else:
            assert torch.equal(found.scores[row], expected.scores[row])


def test_pruned_tokens_are_taken_where_nothing_else_goes_on(program):
    decoder = CTCBeamDecoder(["-", " ", "a", "b"], lexicon=["aa"], top_tokens=1)
    log_probs = torch.tensor([[0.05, 0.05, 0.1, 0.8]]).log().repeat(1, 3, 1)
    compare(program, decoder, log_probs, threads=2)
    found = compare(program, decoder, torch.tensor([[[-torch.inf, -torch.inf, -torch.inf, 0.0]]]), threads=2)
    assert found.errors.tolist() == [[5, 0]]


@pytest.mark.parametrize("threads", [0, 3])
def test_trees_are_compacted(program, threads):
    decoder = make_decoder(LETTERS, beam_width=8, nbest=8, **CONTEXTS["everything"])
    log_probs = random_log_probs(1, 300, len(LETTERS), sharpness=3.0)
    compare(program, decoder, log_probs, threads=threads, tree_room=600)
    # Two prefixes that never meet: a tree that compacting leaves too large is an error of its row, and not an overrun.
    found = team_search.search(
        program, log_probs, context=decoder.context, threads=threads, tree_room=40, beam_width=8
    )
    assert found.errors[0, 0] == 7 and found.errors[0, 1] > 0 and (found.token_lengths == -1).all()


@pytest.mark.parametrize("threads", [0, 3])
def test_what_differs_too_far_back_is_dropped(program, threads):
    decoder = make_decoder(LETTERS, beam_width=20, nbest=20, **CONTEXTS["everything"])
    log_probs = random_log_probs(2, 330, len(LETTERS), sharpness=1.5)
    found = compare(program, decoder, log_probs, threads=threads, history=7)
    assert not torch.equal(
        found.tokens, ops.ctc_beam_search(log_probs, context=decoder.context, **decoder._options).tokens
    )


def test_a_block(program):
    """The kernel itself, but for the instructions of a GPU."""
    decoder = make_decoder(LETTERS, beam_width=9, nbest=4, **CONTEXTS["everything"])
    log_probs = random_log_probs(1, 12, len(LETTERS), sharpness=1.5)
    compare(program, decoder, log_probs, threads=64, block=True, tree_room=150, top_tokens=5)


@pytest.fixture(scope="module")
def sanitizer(tmp_path_factory):
    """Flags for ThreadSanitizer, which knows what each barrier orders, where it works: not on every machine."""
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a process has room for one sanitizer; .ci/run runs this test without the others, too")
    probe = tmp_path_factory.mktemp("probe") / "probe"
    flags = ["-O1", "-g", "-fsanitize=thread"]
    made = subprocess.run(
        ["c++", *flags, "-x", "c++", "-", "-o", probe], input=b"int main() {}", capture_output=True
    )
    if made.returncode or subprocess.run([probe], capture_output=True).returncode:
        assert not os.environ.get("CI")
        pytest.skip("ThreadSanitizer does not work here")
    return flags


def test_no_data_races(tmp_path, sanitizer):
    program = team_search.build(tmp_path, *sanitizer)
    for name, labels in (("everything", LETTERS), ("closed", PIECES), ("characters", LETTERS)):
        decoder = make_decoder(labels, beam_width=9, nbest=4, **CONTEXTS[name])
        log_probs = random_log_probs(1, 40, len(labels), sharpness=1.0)
        # More threads than prefixes, as on a GPU, and fewer.
        for threads in (10, 3):
            compare(program, decoder, log_probs, threads=threads, tree_room=200, top_tokens=5)


def test_the_collectives_of_a_block(tmp_path, sanitizer):
    """kernels/common/cuda/block_team.cuh, with threads of the CPU as those of a GPU."""
    program = team_search.build(tmp_path, *sanitizer, name="block_team")
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stdout + done.stderr


@pytest.mark.parametrize(
    "beam_width, vocabulary, fits_a100, fits_h200",
    [
        # The defaults; what tests/gpu and benchmarks/qualification ask of a device; what its documentation promises.
        (100, 29, True, True),
        (7, 6, True, True),
        (200, 128, True, True),
        (16, 1000, True, True),
        (64, 29, True, True),
        (700, 29, False, True),
        (100, 23_000, False, True),
        (730, 29, False, False),
        (100, 24_000, False, False),
        (4000, 29, False, False),
    ],
)
def test_what_fits_into_a_block(room, beam_width, vocabulary, fits_a100, fits_h200):
    """A block's threads and shared memory, by an A100's and an H200's numbers, however long the utterance is."""
    for frames in (1, 500, 4000):
        done = subprocess.run(
            [room, *map(str, (beam_width, vocabulary, frames))], capture_output=True, text=True
        )
        threads, taken = map(int, done.stdout.split())
        assert threads % 32 == 0 and threads <= 512
        assert (taken <= SM_80[1], taken <= SM_90[1]) == (fits_a100, fits_h200), taken


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return team_search.build(tmp_path_factory.mktemp("room"), "-O0", name="ctc_room")


def test_threads_that_part_are_told(tmp_path):
    """What the stand-in for a block says of a barrier or a shuffle that not all threads reach."""
    program = team_search.build(tmp_path, "-O1", name="team_divergence")
    for what in ("agree", "return", "shuffle"):
        done = subprocess.run([program, what], capture_output=True, text=True, timeout=60)
        if what == "agree":
            assert (done.returncode, done.stdout) == (0, "done\n")
        else:
            assert (done.returncode, done.stderr) == (
                -signal.SIGABRT,
                "a barrier that not all threads reach\n",
            )
