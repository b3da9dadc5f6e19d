"""The environment variables that asrkern reads: what ``asrkern report`` and the documentation say of them."""

from __future__ import annotations

from typing import NamedTuple


class Variable(NamedTuple):
    """values: what it may be, for people; effect: what it does; secret: whether its value is not to be shown."""

    values: str
    effect: str
    secret: bool = False


VARIABLES = {
    "ASRKERN_API_KEY": Variable(
        "a key", "`asrkern serve` answers only clients that send it. Without it, everyone.", secret=True
    ),
    "ASRKERN_CHECK": Variable(
        "`1`", "Outputs are filled with NaN before a kernel writes them, so that a value that it leaves out is seen."
    ),
    "ASRKERN_CPU_ISA": Variable(
        "`scalar`, `avx2`, `avx512`, `avx512_vnni`",
        "The instruction set of the CPU's kernels. Without it, the best one that the CPU has; AVX-512 only where these "
        "sources were checked on a CPU that has it.",
    ),
    "ASRKERN_CUDA": Variable(
        "`force`, `off`",
        "`force` takes asrkern's GPU kernels unchecked, `off` takes none. Without it, those that have passed their check.",
    ),
    "ASRKERN_DATA": Variable("a folder", "Where the corpora are that the repository's recipes name."),
    "ASRKERN_LOG": Variable(
        "`ops`", "Each operation's call, with shapes and dtypes, is a line on standard error. It costs nothing without."
    ),
    "ASRKERN_THREADS": Variable(
        "a positive number",
        "How many threads torch has in commands and after `asrkern.load`. Without it, OMP_NUM_THREADS, or the whole CPUs "
        "of a container's quota, or what torch chooses.",
    ),
    "ASRKERN_TORCH_DIR": Variable(
        "a folder", "The torch package that a build is for, in place of the environment's; of any Python."
    ),
}  # fmt: skip
