"""A trained model and what is done with it: read, transcribe, stream. Needs the extra ``recognizer``.

``saved``           a trained model in one file: safetensors with everything else as JSON in its header
``tokenizer``       transcripts to indices and back: characters, class labels, sentencepiece
``feature_settings``  which features; recorded in the checkpoint
``text``            transcripts made uniform; recorded in the checkpoint
``tasks``           loss and transcripts of CTC models, attention models and classifiers
``transcription``   texts, words with times, classes; long recordings in windows
``stream_transcription``  the same while audio comes in
``subtitles``       words with times in SubRip's form
``conversion``      checkpoints of other projects as asrkern's

Nothing here needs Lightning or lhotse; :mod:`asrkern.training` is built on it.
"""
