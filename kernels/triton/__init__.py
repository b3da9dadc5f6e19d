"""Triton kernels, installed as ``asrkern._triton``: ``@triton.jit`` only. Their launchers are in ``asrkern/ops``."""
