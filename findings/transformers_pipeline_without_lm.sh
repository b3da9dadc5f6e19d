#!/usr/bin/env bash
# transformers 5.24.0 with pyctcdecode 0.5.0: the ASR pipeline of a directory that its own save_pretrained has written.
#
# Guess: pipeline("automatic-speech-recognition", directory) decodes with the language model of a directory of
# Wav2Vec2ProcessorWithLM.save_pretrained, as AutoProcessor finds it there.
# Found: it decodes without, and does not say so. It looks for the processor's name where the feature extractor's settings
# are: in preprocessor_config.json, where transformers 4 has written it. 5.24 writes one processor_config.json with the name
# beside these settings. With decoder=processor.decoder, or with a preprocessor_config.json instead, the model is there.
# docs/decoder.md has the way round, and tests/decoder/test_transformers.py has the older file.
#
# Output seen:
#   files: no preprocessor_config.json
#   AutoProcessor: Wav2Vec2ProcessorWithLM
#   pipeline: ctc
#   pipeline, decoder given: ctc_with_lm
#   pipeline, preprocessor_config.json instead: ctc_with_lm
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 pyctcdecode==0.5.0 kenlm==0.3.0 'numpy<2' 2>"$work/log" || { cat "$work/log"; exit 1; }
cat >"$work/lm.arpa" <<'A'
\data\
ngram 1=5
ngram 2=1

\1-grams:
-1	<unk>
-1	</s>
-99	<s>	0
-0.6	a	0
-0.6	b	0

\2-grams:
-0.3	a b

\end\
A
cat >"$work/directory.py" <<'P'
import json
import os
import sys

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
decoder = build_ctcdecoder(sorted(vocabulary, key=vocabulary.get), sys.argv[2])
config = transformers.Wav2Vec2Config(
    vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
    conv_stride=(10, 8), conv_kernel=(10, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, pad_token_id=0,
)
saved = f"{folder}/saved"
transformers.Wav2Vec2ProcessorWithLM(extractor, tokenizer, decoder).save_pretrained(saved)
transformers.Wav2Vec2ForCTC(config).save_pretrained(saved)
print("files:", "preprocessor_config.json" if os.path.exists(f"{saved}/preprocessor_config.json") else "no preprocessor_config.json")
processor = transformers.AutoProcessor.from_pretrained(saved)
print("AutoProcessor:", type(processor).__name__)
print("pipeline:", transformers.pipeline("automatic-speech-recognition", saved).type)
given = transformers.pipeline("automatic-speech-recognition", saved, decoder=processor.decoder)
print("pipeline, decoder given:", given.type)
with open(f"{saved}/preprocessor_config.json", "w") as file:
    json.dump({**extractor.to_dict(), "processor_class": "Wav2Vec2ProcessorWithLM"}, file)
os.remove(f"{saved}/processor_config.json")
print("pipeline, preprocessor_config.json instead:", transformers.pipeline("automatic-speech-recognition", saved).type)
P
"$work/venv/bin/python" -W ignore "$work/directory.py" "$work" "$work/lm.arpa" 2>"$work/log" | tee "$work/seen" || { cat "$work/log"; exit 1; }
diff - "$work/seen" <<'P'
files: no preprocessor_config.json
AutoProcessor: Wav2Vec2ProcessorWithLM
pipeline: ctc
pipeline, decoder given: ctc_with_lm
pipeline, preprocessor_config.json instead: ctc_with_lm
P
