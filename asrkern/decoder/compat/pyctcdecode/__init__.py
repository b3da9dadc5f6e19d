"""pyctcdecode 0.5.0's interface on asrkern's beam search. Modules and names are as there.

``docs/decoder.md`` says where results differ. :func:`asrkern.decoder.compat.install_as_pyctcdecode` makes this the
package that ``import pyctcdecode`` finds.
"""

from asrkern.decoder.compat.pyctcdecode.alphabet import Alphabet
from asrkern.decoder.compat.pyctcdecode.decoder import (
    BeamSearchDecoderCTC,
    OutputBeam,
    OutputBeamMPSafe,
    build_ctcdecoder,
)
from asrkern.decoder.compat.pyctcdecode.language_model import (
    HotwordScorer,
    LanguageModel,
    MultiLanguageModel,
)

__all__ = [
    "Alphabet",
    "BeamSearchDecoderCTC",
    "HotwordScorer",
    "LanguageModel",
    "MultiLanguageModel",
    "OutputBeam",
    "OutputBeamMPSafe",
    "build_ctcdecoder",
]
