"""May a kernel run by default?

What passes here is recorded in ``benchmarks/results``, and builds read these records. The speed of the GPU kernels, which
no other machine can tell, is measured in the same run.
"""
