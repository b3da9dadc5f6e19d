"""The formats with fewer bits that benchmarks compare: the types of weights and of activations, by name."""

FORMATS = {"bf16": ("bf16", "float32"), "int8": ("int8", "float32"), "int8/int8": ("int8", "int8")}
