"""Training: from a recipe to a checkpoint, a table and a learning curve. Needs the extra ``train``.

The files in the order in which a run uses them. Tokenizer, features, tasks and checkpoints are in
:mod:`asrkern.recognizer`:

``recipe``      what is trained, on what, and how: TOML read into pydantic models, ``key=value`` overrides
``manifests``   corpora as a lhotse CutSet: those that asrkern.data.read_manifest reads, LibriSpeech folders, and
``kaldi``       Kaldi's folders, and
``lhotse_manifests``  lhotse's own manifests; ``cuts`` is what these three share
``corpus``      the utterances that a model can learn from; the others are counted, named and left out
``batches``     which utterances make which batch of which epoch, and loading them
``augment``     SpecAugment
``data``        the two corpora of a recipe as Lightning's data module
``metrics``     WER, CER, CRR, distance, accuracy; the best constant answer
``schedules``   learning rate, teacher forcing, dropout
``module``      Lightning's module: steps, accumulation, clipping, running out of memory
``averaging``   moving averages of weights, and the average of the last checkpoints
``callbacks``   what is written while a model is trained
``diagnostics`` says whether a CTC model collapses, and why
``results``     the table of epochs and the learning curve
``scoreboard``  what recipes reach: a table with a line for each evaluation
``trainer``     puts these together; ``sweep`` runs variants of a recipe
``evaluation``  a trained model on a corpus: metrics, the worst utterances, confusions
"""
