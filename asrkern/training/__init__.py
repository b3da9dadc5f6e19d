"""Training: from a recipe to a checkpoint, a table and a learning curve. Needs the extra ``train``.

The way of a run, file by file; tokenizer, features, tasks and checkpoints are those of :mod:`asrkern.recognizer`:

``recipe``      what is trained, on what, how: TOML read into pydantic models, ``key=value`` overrides
``manifests``   corpora as a lhotse CutSet: those of asrkern.data.read_manifest, LibriSpeech folders, and of
``kaldi``       Kaldi folders, and of
``lhotse_manifests``  lhotse itself; ``cuts`` is what they share
``corpus``      utterances that can be learned from; the others are counted, named and left out
``batches``     which utterances make which batch of which epoch, and loading them
``augment``     SpecAugment
``data``        the two corpora of a recipe as Lightning's data module
``metrics``     WER, CER, CRR, distance, accuracy; the best constant answer
``schedules``   learning rate, teacher forcing, dropout
``module``      Lightning's module: steps, accumulation, clipping, running out of memory
``averaging``   moving averages of weights, and the average of the last checkpoints
``callbacks``   what is written while a model is trained
``diagnostics`` tells whether and why a CTC model collapses
``results``     the table of epochs and the learning curve
``trainer``     puts these together; ``sweep`` runs variants of a recipe
``evaluation``  of a trained model: metrics of a corpus, the worst utterances, confusions
"""
