"""benchmarks/qualification/_kernel_names.py: which kernels of a profile are asrkern's own."""

from __future__ import annotations

import pytest

from benchmarks.qualification._kernel_names import cuda_functions, own_kernels, short_name, triton_functions

CUDA = """
__device__ int helper(int x);
template <typename T, int H>
__global__ void __launch_bounds__(kThreads, 1) persistent(const Args a) {}
__global__ __launch_bounds__(256) void step(Args a) {}
__global__ void
plain (int n);
"""
TRITON = """
@triton.jit
def _tile(x): ...

@triton.autotune(configs=[], key=[])
@triton.jit(do_not_specialize=["a", "b"])
def normalise(
    x,
): ...
"""


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "a.cu").write_text(CUDA)
    (tmp_path / "a.py").write_text(TRITON)
    return [tmp_path / "a.cu", tmp_path / "a.py"]


def test_launched_functions_of_sources(sources):
    assert cuda_functions(sources) == ["persistent", "step", "plain"]
    assert triton_functions(sources) == ["normalise"]


def test_only_what_the_sources_define_is_their_own(sources):
    ours = {
        "void asrkern::cuda::(anonymous namespace)::persistent<__nv_bfloat16, 8>(asrkern::cuda::Args)": 1.0,
        "asrkern::cuda::plain(int)": 2.0,
        "normalise": 3.0,
    }
    others = {
        "void cudnn::persistent<float>(int)": 1.0,
        "asrkern::cuda::steps(int)": 1.0,
        "triton_poi_normalise": 1.0,
        "void at::native::step(int)": 1.0,
        "Memcpy HtoD (Pageable -> Device)": 1.0,
    }
    assert own_kernels(ours | others, sources) == ours


@pytest.mark.parametrize(
    "demangled, short",
    [
        ("asrkern::cuda::(anonymous namespace)::f(asrkern::cuda::Args, long)", "f"),
        ("void asrkern::cuda::gru::f<(int)8, __half, (bool)1>(int)", "gru::f<8, __half, 1>"),
        ("void asrkern::f<asrkern::cuda::Traits<float, (int)4> >(float*)", "f<Traits<float, 4> >"),
        ("ampere_sgemm_128x64_tn", "ampere_sgemm_128x64_tn"),
    ],
)
def test_short_names(demangled, short):
    assert short_name(demangled) == short
