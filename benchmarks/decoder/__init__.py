"""How fast are the decoder and its language model against other packages, how good are its times of words, does a stream
stay at constant cost?"""
