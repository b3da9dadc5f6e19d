"""Files that people take for ARPA files: their kinds, told by how they begin, and what can be done with each."""

from __future__ import annotations

from asrkern._file_kinds import is_safetensors

_CONVERT_SPHINX = "`sphinx_lm_convert -i FILE -o NEW.arpa` converts it"
_KINDS = {
    b"mmap lm http://kheafield.com/code": (
        "a binary file of KenLM",
        "NGramLM.from_kenlm_binary reads it, and so does NGramLM.open; neither reads it compressed",
    ),
    b"blmt": ("a binary file of IRSTLM", "`compile-lm --text=yes FILE NEW.arpa` converts it"),
    b"Qblmt": ("a quantised file of IRSTLM", "compile the model without quantising it"),
    b"SRILM_BINARY_NGRAM": ("a binary file of SRILM", "`ngram -lm FILE -write-lm NEW.arpa` converts it"),
    b"SRILM_BINARY_COUNTS": (
        "n-gram counts of SRILM",
        "`ngram-count -read FILE -lm NEW.arpa` estimates a model",
    ),
    b"\x11\0\0\0Darpa Trigram LM": ("a DMP file of Sphinx", _CONVERT_SPHINX),
    b"\0\0\0\x11Darpa Trigram LM": ("a DMP file of Sphinx", _CONVERT_SPHINX),
    b"Trie Language Model": ("a binary file of Sphinx", _CONVERT_SPHINX),
    b"\xd6\xfd\xb2\x7e": (
        "a transducer of OpenFst",
        "OpenGrm's `ngramprint --ARPA FILE NEW.arpa` may convert it",
    ),
    b"\0B<ConstArpaLm>": ("a ConstArpaLm of Kaldi", "take the ARPA file that it was made from"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file", "`git lfs pull` fetches it"),
    b"<!DOCTYPE": ("a web page", "download the file itself"),
    b"<!doctype": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
    b"PK\3\4": ("a zip archive", "unpack it"),
    b"\xff\xfe": ("text in UTF-16", "`iconv -f utf-16 -t utf-8 FILE > NEW.arpa` converts it"),
    b"\xfe\xff": ("text in UTF-16", "`iconv -f utf-16 -t utf-8 FILE > NEW.arpa` converts it"),
}


def refuse_foreign(beginning: bytes) -> None:
    """Raise ValueError if a file that begins so is of a known kind that is no ARPA file."""
    for magic, (kind, way_out) in _KINDS.items():
        if beginning.startswith(magic):
            raise ValueError(f"expected an ARPA file, received {kind}: {way_out}")
    if beginning[257:262] == b"ustar":
        raise ValueError("expected an ARPA file, received a tar archive: unpack it")
    if is_safetensors(beginning):
        raise ValueError(
            "expected an ARPA file, received a safetensors file: NGramLM.load reads those of NGramLM.save"
        )
