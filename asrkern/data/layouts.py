"""Public corpora in the folders that their archives unpack to, as lines of NeMo manifests.

=================  =================================================================  ==============================
corpus             layout                                                             parts
=================  =================================================================  ==============================
``librispeech``    ``train-clean-100/103/1240/103-1240.trans.txt`` and recordings     train (all of train-*), and
                   beside it                                                          dev-* and test-* by themselves
``an4``            ``etc/an4_train.fileids``, ``.transcription``, ``wav/an4_clstk``   train, test
``fsdd``           ``recordings/7_jackson_32.wav``                                    test (recordings 0 to 4), train
``speech_commands``  ``bed/*.wav``, ``validation_list.txt``, ``testing_list.txt``     train, dev, test
``grid``           ``s1/bbaf2n.wav`` anywhere, perhaps ``s1/bbaf2n.align`` elsewhere  train, dev, test: see below
=================  =================================================================  ==============================

GRID has no parts of its own. Test is the talkers s1, s2, s20 and s22, as in LipNet (Assael et al. 2016), if there are
other talkers, too. Of these, every twentieth sentence is dev.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import soundfile

from asrkern._atomic_write import atomic_write
from asrkern._names import nearest
from asrkern.data._files import check_text, decode, read_lines
from asrkern.data.recording import Recording

Only = Collection[str] | None

_SUFFIXES = (".flac", ".wav", ".sph", ".ogg")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_LIBRISPEECH_PART = re.compile(r"(train|dev|test)-.+")
_FSDD_NAME = re.compile(r"(\d)_(.+)_(\d+)")
_AN4_LINE = re.compile(r"(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\(([^()]+)\)\s*")
_GRID_NAME = re.compile(r"[blps][bgrw][abiw][a-z][z1-9][anps]")
_GRID_TALKER = re.compile(r"s\d+")
_GRID_TEST = ("s1", "s2", "s20", "s22")
# For each letter of a sentence's name the word that it stands for. The fourth is the letter that is spoken.
_GRID_WORDS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {},
    {"z": "zero", **{str(i): word for i, word in enumerate(_DIGITS) if i}},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
# Times in .align files: 1000 for each frame of video, of which there are 25 a second.
_GRID_TICKS_PER_SECOND = 25_000


class Spoken(NamedTuple):
    """A recording, what is said in it, and the manifest's other fields."""

    path: Path
    text: str
    extra: dict[str, Any]


@dataclass
class Corpus:
    """parts: the recordings of each part; left_out: what is missing or strange in the corpus, and why."""

    parts: dict[str, list[Spoken]] = field(default_factory=lambda: defaultdict(list))
    left_out: list[str] = field(default_factory=list)


def read_corpus(name: str, folder: str | os.PathLike[str], only: Only = None) -> Corpus:
    """The recordings of a corpus and their transcripts.

    Args:
        name: one of ``CORPORA``.
        folder: in which it was unpacked.
        only: words of Speech Commands, or parts of LibriSpeech; None for all.

    Raises:
        FileNotFoundError: the folder does not exist, or does not hold the corpus.
        ValueError: there is no such corpus, or something that ``only`` asks for is not in it.
    """
    if name not in _READERS:
        raise ValueError(f"name: expected {nearest(name, _READERS)}, received {name!r}")
    if only is not None and name not in ("librispeech", "speech_commands"):
        raise ValueError(f"only: expected None for {name}, received {sorted(only)}")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: expected a folder, received {str(folder)!r}, which is none")
    marker, read = _READERS[name]
    # Archives unpack to a folder inside this one, or to two levels of folders.
    first = next((file for depth in ("", "*/", "*/*/") for file in folder.glob(depth + marker)), None)
    if first is None:
        raise FileNotFoundError(
            f"folder: expected {name}, so {marker} in {str(folder)!r} or up to two folders below, found none"
        )
    corpus = Corpus()
    read(first, folder, only, corpus)
    if not any(corpus.parts.values()):
        raise ValueError(f"folder: expected recordings, found none in {str(folder)!r}")
    return corpus


def manifest_line(spoken: Spoken, folder: Path) -> dict[str, Any]:
    """A line of a NeMo manifest in this folder.

    Raises:
        ValueError: the recording cannot be read, or is empty, or its name is no text.
    """
    try:
        about = soundfile.info(str(spoken.path))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{spoken.path}: expected a recording: {error.error_string}") from None
    if not about.frames:
        raise ValueError(f"{spoken.path}: expected a recording, received one without samples")
    path = check_text(
        os.path.relpath(spoken.path.resolve(), folder.resolve()), "name", repr(str(spoken.path))
    )
    return {
        "audio_filepath": Path(path).as_posix(),
        "duration": round(about.frames / about.samplerate, 4),
        "text": spoken.text,
        **spoken.extra,
    }


def as_wav(spoken: Spoken, folder: Path) -> Spoken:
    """The recording as a WAV file in this folder, if it is NIST Sphere, which lhotse does not read by itself.

    Raises:
        OSError: the file cannot be written.
        ValueError: the recording cannot be read.
    """
    if spoken.path.suffix != ".sph":
        return spoken
    path = folder / f"{spoken.path.stem}.wav"
    blocks = _blocks(spoken.path)
    rate, channels = next(blocks)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as temporary,
        soundfile.SoundFile(temporary, "w", rate, channels, "PCM_16", format="WAV") as target,
    ):
        for block in blocks:
            target.write(block)
    return spoken._replace(path=path)


def _blocks(path: Path) -> Iterator[Any]:
    """A recording's rate and channels, then its samples [frames, channels], int16."""
    try:
        with path.open("rb", buffering=0) as file, Recording(file):
            pass  # Whole, as far as its header tells.
        with soundfile.SoundFile(path) as source:
            yield source.samplerate, source.channels
            yield from source.blocks(1 << 16, dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: expected a recording: {error.error_string}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _librispeech(first: Path, folder: Path, only: Only, corpus: Corpus) -> None:
    parts = {path.name: path for path in sorted(first.parents[3].iterdir()) if path.is_dir()}
    for part in _chosen(only, filter(_LIBRISPEECH_PART.fullmatch, parts)):
        target = corpus.parts["train" if part.startswith("train") else part]
        for transcripts in sorted(parts[part].glob("*/*/*.trans.txt")):
            for _, line in _lines(transcripts):
                name, *text = line.split(None, 1)
                path = _recording(transcripts.parent / name)
                if path is None:
                    corpus.left_out.append(f"{transcripts}: {name}: there is no recording beside it")
                else:
                    target.append(Spoken(path, "".join(text).strip(), {"speaker": name.split("-")[0]}))


def _an4(first: Path, folder: Path, only: Only, corpus: Corpus) -> None:
    root = first.parents[1]
    for part in ("train", "test"):
        names, said = (root / "etc" / f"an4_{part}.{kind}" for kind in ("fileids", "transcription"))
        if not names.is_file() or not said.is_file():
            continue
        texts = {}
        for where, line in _lines(said):
            if match := _AN4_LINE.fullmatch(line):
                texts[match[2]] = " ".join(word for word in match[1].split() if word != "<sil>")
            else:
                corpus.left_out.append(f"{where}: expected '<s> TEXT </s> (name)', received {line!r}")
        for _, line in _lines(names):
            name = line.strip()
            path, stem = _recording(root / "wav" / name), Path(name).name
            if path is None:
                corpus.left_out.append(f"{names}: {name}: there is no recording in {root / 'wav'}")
            elif stem not in texts:
                corpus.left_out.append(f"{said}: {stem}: there is no transcript")
            else:
                corpus.parts[part].append(Spoken(path, texts[stem], {"speaker": Path(name).parent.name}))


def _fsdd(first: Path, folder: Path, only: Only, corpus: Corpus) -> None:
    for path in sorted(first.parent.glob("*.wav")):
        match = _FSDD_NAME.fullmatch(path.stem)
        if match is None:
            corpus.left_out.append(f"{path}: expected a name such as 7_jackson_32.wav")
            continue
        digit = _DIGITS[int(match[1])]
        part = "test" if int(match[3]) < 5 else "train"
        corpus.parts[part].append(Spoken(path, digit, {"label": digit, "speaker": match[2]}))


def _speech_commands(first: Path, folder: Path, only: Only, corpus: Corpus) -> None:
    root = first.parent
    listed: dict[str, str] = {}
    for part, file in (("dev", "validation_list.txt"), ("test", "testing_list.txt")):
        if not (root / file).is_file():
            raise FileNotFoundError(f"folder: expected {file} in {str(root)!r}, found none")
        listed.update((line.strip(), part) for _, line in _lines(root / file))
    words = (path.name for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] not in "_.")
    for word in _chosen(only, words):
        found = {f"{word}/{path.name}": path for path in sorted((root / word).glob("*.wav"))}
        for name, path in found.items():
            extra = {"label": word, "speaker": path.name.split("_nohash_")[0]}
            corpus.parts[listed.get(name, "train")].append(Spoken(path, word, extra))
        missing = (name for name in listed if name.startswith(f"{word}/") and name not in found)
        corpus.left_out += [f"{root / name}: listed, but not there" for name in missing]


def _grid(first: Path, folder: Path, only: Only, corpus: Corpus) -> None:
    alignments = {_grid_key(path): path for path in folder.rglob("*.align")}
    talkers: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.rglob("*.wav")):
        talker, name = _grid_key(path)
        if talker is None or not _GRID_NAME.fullmatch(name):
            corpus.left_out.append(f"{path}: expected a sentence of a talker, such as s1/bbaf2n.wav")
        else:
            # With several sample rates, the first.
            talkers[talker].setdefault(name, path)
    tested = set(_GRID_TEST) if set(talkers) - set(_GRID_TEST) else set()
    for talker, sentences in sorted(talkers.items(), key=lambda item: int(item[0][1:])):
        for index, (name, path) in enumerate(sorted(sentences.items())):
            part = "test" if talker in tested else "dev" if index % 20 == 19 else "train"
            text = " ".join(words.get(letter, letter) for words, letter in zip(_GRID_WORDS, name))
            extra: dict[str, Any] = {"speaker": talker}
            if alignment := alignments.get((talker, name)):
                try:
                    extra["words"] = list(_grid_words(alignment))
                except ValueError as error:
                    corpus.left_out.append(str(error))
            corpus.parts[part].append(Spoken(path, text, extra))


def _grid_key(path: Path) -> tuple[str | None, str]:
    """Talker and sentence of a file."""
    talker = next((p.name for p in path.parents if _GRID_TALKER.fullmatch(p.name)), None)
    return talker, path.stem.lower()


def _grid_words(path: Path) -> Iterator[list[Any]]:
    """[word, start s, end s] of an .align file, without its pauses."""
    for where, line in _lines(path):
        parts = line.split()
        if len(parts) != 3 or not parts[0].isdecimal() or not parts[1].isdecimal():
            raise ValueError(f"{where}: expected start, end and word, received {line!r}")
        if parts[2] not in ("sil", "sp"):
            start, end = (int(ticks) / _GRID_TICKS_PER_SECOND for ticks in parts[:2])
            yield [parts[2], start, end]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each after its place. Raises ValueError for a line that is not UTF-8."""
    for where, line in read_lines(path):
        yield where, decode(line, where)


def _recording(path: Path) -> Path | None:
    """The file of this name with a suffix of recordings; None if there is none."""
    return next((p for suffix in _SUFFIXES if (p := path.with_name(path.name + suffix)).is_file()), None)


def _chosen(only: Only, names: Iterable[str]) -> list[str]:
    """The names that are asked for. Raises ValueError if one does not exist."""
    names = list(names)
    for name in sorted(only or ()):
        if name not in names:
            raise ValueError(f"only: expected {nearest(name, names)}, received {name!r}")
    return [name for name in names if only is None or name in only]


# A file that shows where the corpus is, and the reader, which takes that file, the folder and what is asked for.
_READERS: dict[str, tuple[str, Callable[[Path, Path, Only, Corpus], None]]] = {
    "librispeech": ("*-*/*/*/*.trans.txt", _librispeech),
    "an4": ("etc/an4_train.fileids", _an4),
    "fsdd": ("recordings/*.wav", _fsdd),
    "speech_commands": ("validation_list.txt", _speech_commands),
    "grid": ("s[0-9]*/*.wav", _grid),
}
CORPORA = tuple(_READERS)
