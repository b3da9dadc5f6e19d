"""The Triton kernels of ``kernels/*/triton``: ``@triton.jit`` only. Their launchers are in ``asrkern/ops``."""
