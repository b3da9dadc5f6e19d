"""Default values, under pyctcdecode's names."""

import math

DEFAULT_ALPHA = 0.5
DEFAULT_BETA = 1.5
DEFAULT_UNK_LOGP_OFFSET = -10.0
DEFAULT_BEAM_WIDTH = 100
DEFAULT_HOTWORD_WEIGHT = 10.0
DEFAULT_PRUNE_LOGP = -10.0
DEFAULT_PRUNE_BEAMS = False
DEFAULT_MIN_TOKEN_LOGP = -5.0
DEFAULT_SCORE_LM_BOUNDARY = True

# Letters; unfinished unknown words that are longer cost more than unk_score_offset.
AVG_TOKEN_LEN = 6
# Smaller probabilities count as this one.
MIN_TOKEN_CLIP_P = 1e-15
# From log10, as in ARPA files, to natural logarithms.
LOG_BASE_CHANGE_FACTOR = math.log(10)
