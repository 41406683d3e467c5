"""Counts by fvcore's trace of the forward pass, whose operators are those that the network's code calls."""

import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.complexity.operator_cost import Count
from benchmarks.complexity.operators import ADDING, einsum_products, is_free

with warnings.catch_warnings():
    # fvcore scripts a loss at import: torch 2.13 warns of it as deprecated, torch from 2.14 on as of the future.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn.jit_analysis import JitModelAnalysis
    from fvcore.nn.jit_handles import conv_flop_count, get_shape

PRODUCTS = ("linear", "matmul", "mm", "bmm", "mv", "dot", *ADDING)  # of two tensors


class NotTracedError(Exception):
    """fvcore's trace of a network failed."""


def count_by_trace(net: nn.Module, image: Tensor) -> Count:
    """Count a network on the CPU, in eval mode, for one image of [1, C, H, W].

    Raises:
        NotTracedError: fvcore cannot trace it.
        ValueError: of the network itself.
    """
    count = Count.of(net)
    analysis = JitModelAnalysis(net, image)
    for name, add in _handles(count).items():
        analysis.set_op_handle(name, add)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            analysis.total()
        except ValueError:
            raise
        except Exception as error:  # whatever the trace trips over
            raise NotTracedError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    count.uncounted = {name.removeprefix("aten::") for name in analysis.unsupported_ops() if not is_free(name)}
    return count


def _handles(count: Count) -> dict[str, Callable[[Any, Any], int]]:
    """Return what fvcore calls for each operator that is counted: it adds to ``count``, and tells fvcore of nothing."""

    def add(outputs: list[Any], kind: str, macs: int, activations: int) -> int:
        count.add(outputs[0].node().scopeName().split("/")[-1], kind, macs, activations)
        return 0

    def convolution(inputs: list[Any], outputs: list[Any]) -> int:
        transposed = outputs[0].node().kind() == "aten::_convolution" and inputs[6].toIValue()
        x, weight, output = map(get_shape, (*inputs[:2], outputs[0]))
        macs = int(conv_flop_count(x, weight, output, transposed=transposed))
        return add(outputs, "conv_transpose" if transposed else "conv", macs, prod(output))

    def product(adds: bool) -> Callable[[Any, Any], int]:
        def of_two(inputs: list[Any], outputs: list[Any]) -> int:
            elements = prod(get_shape(outputs[0]))
            return add(outputs, "matmul", elements * get_shape(inputs[int(adds)])[-1], elements)

        return of_two

    def einsum(inputs: list[Any], outputs: list[Any]) -> int:
        shapes = [get_shape(value) for value in inputs[1].node().inputs()]
        path = inputs[2].toIValue() if len(inputs) > 2 else None
        for macs, elements in einsum_products(inputs[0].toIValue(), shapes, path or ()):
            add(outputs, "matmul", macs, elements)
        return 0

    def attention(inputs: list[Any], outputs: list[Any]) -> int:
        """Scores of every query with every key, and the mean of the values that they weigh; masks change nothing."""
        *heads, queries, width = get_shape(inputs[0])
        keys, value_width = get_shape(inputs[2])[-2:]
        rows = prod(heads) * queries
        return add(outputs, "matmul", rows * keys * (width + value_width), rows * (keys + value_width))

    return {
        "aten::_convolution": convolution,
        "aten::_convolution_mode": convolution,  # padding="same"
        **{f"aten::{name}": product(name in ADDING) for name in PRODUCTS},
        "aten::einsum": einsum,
        "aten::scaled_dot_product_attention": attention,
    }
