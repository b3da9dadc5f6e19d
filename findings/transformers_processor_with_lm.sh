#!/usr/bin/env bash
# transformers 5.25.0 with pyctcdecode 0.5.0: AutoProcessor of a directory that Wav2Vec2ProcessorWithLM has saved.
#
# Guess: 5.25 calls Wav2Vec2ProcessorWithLM deprecated, until version 6; until then from_pretrained goes on as in 5.24.
# Found: it raises AttributeError with any decoder. from_pretrained calls ProcessorMixin's _get_arguments_from_pretrained,
# which 5.25 has removed (5.24.0 has it: transformers_pipeline_without_lm.sh); Wav2Vec2Processor's works, as do the
# constructor and a pipeline with decoder=. Pop2PianoProcessor calls the same method.
# asrkern.decoder.compat.install_as_pyctcdecode puts the method back (tests/decoder/test_transformers.py).
#
# Output seen:
#   AutoProcessor: AttributeError _get_arguments_from_pretrained
#   of parts: ab
#   pipeline, decoder given: ctc_with_lm
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.25.0 pyctcdecode==0.5.0 kenlm==0.3.0 'numpy<2' 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/processor.py" <<'P'
import json
import sys

import numpy as np
import transformers
from pyctcdecode import build_ctcdecoder

transformers.utils.logging.set_verbosity_error()
folder = sys.argv[1]
vocabulary = {"[PAD]": 0, "[UNK]": 1, "|": 2, "a": 3, "b": 4}
with open(f"{folder}/vocab.json", "w") as file:
    json.dump(vocabulary, file)
names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "word_delimiter_token": "|"}
tokenizer = transformers.Wav2Vec2CTCTokenizer(f"{folder}/vocab.json", bos_token=None, eos_token=None, **names)
extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
decoder = build_ctcdecoder(sorted(vocabulary, key=vocabulary.get))
config = transformers.Wav2Vec2Config(
    vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
    conv_stride=(10, 8), conv_kernel=(10, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, pad_token_id=0,
)
saved = f"{folder}/saved"
of_parts = transformers.Wav2Vec2ProcessorWithLM(extractor, tokenizer, decoder)
of_parts.save_pretrained(saved)
transformers.Wav2Vec2ForCTC(config).save_pretrained(saved)
try:
    print("AutoProcessor:", type(transformers.AutoProcessor.from_pretrained(saved)).__name__)
except AttributeError as error:
    print("AutoProcessor: AttributeError", error.name)
    print("of parts:", of_parts.decode(np.log(np.eye(5, dtype=np.float32)[[3, 4]] + 1e-4)).text)
    asr = transformers.pipeline(
        "automatic-speech-recognition", saved, tokenizer=tokenizer, feature_extractor=extractor, decoder=decoder
    )
    print("pipeline, decoder given:", asr.type)
P
"$work/venv/bin/python" -W ignore "$work/processor.py" "$work" 2>"$work/log" | tee "$work/seen" || { cat "$work/log"; exit 1; }
diff - "$work/seen" <<'P'
AutoProcessor: AttributeError _get_arguments_from_pretrained
of parts: ab
pipeline, decoder given: ctc_with_lm
P
