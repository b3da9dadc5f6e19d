"""Decoders with the signatures and results of torchaudio and of pyctcdecode, on asrkern's beam search.

They share calls and fields with the originals; the search is :class:`asrkern.decoder.CTCBeamDecoder`'s.
``docs/decoder.md`` says where results differ. Arguments without a counterpart raise ``ValueError`` with their name.
"""

from asrkern.decoder.compat import pyctcdecode
from asrkern.decoder.compat._callback_lm import CTCDecoderLM, CTCDecoderLMState
from asrkern.decoder.compat._install import install_as_pyctcdecode
from asrkern.decoder.compat._torchaudio import CTCDecoder, CTCHypothesis, ctc_decoder
from asrkern.decoder.compat._torchaudio_cuda import CUCTCDecoder, CUCTCHypothesis, cuda_ctc_decoder
from asrkern.decoder.compat.pyctcdecode import BeamSearchDecoderCTC, build_ctcdecoder

__all__ = [
    "BeamSearchDecoderCTC",
    "CTCDecoder",
    "CTCDecoderLM",
    "CTCDecoderLMState",
    "CTCHypothesis",
    "CUCTCDecoder",
    "CUCTCHypothesis",
    "build_ctcdecoder",
    "ctc_decoder",
    "cuda_ctc_decoder",
    "install_as_pyctcdecode",
    "pyctcdecode",
]
