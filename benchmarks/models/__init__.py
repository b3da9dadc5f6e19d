"""What do models and commands cost beyond one utterance: in streams, over an hour of audio, beside other processes?

``_systems.py`` tells ``benchmarks/rtf.py`` what the models are, and the twins beside it compute them in stock torch.
"""
