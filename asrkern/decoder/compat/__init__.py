"""Decoders with the signatures and results of torchaudio and of pyctcdecode, on asrkern's beam search.

They share calls and fields with the originals; the search is :class:`asrkern.decoder.CTCBeamDecoder`'s. Each docstring
says where results differ. Arguments without a counterpart raise ``ValueError`` with their name.
"""

from asrkern.decoder.compat._pyctcdecode import BeamSearchDecoderCTC, build_ctcdecoder
from asrkern.decoder.compat._torchaudio import CTCDecoder, CTCHypothesis, ctc_decoder

__all__ = ["BeamSearchDecoderCTC", "CTCDecoder", "CTCHypothesis", "build_ctcdecoder", "ctc_decoder"]
