"""Operators of PyTorch: how many multiply-adds a product of tensors takes, and which operators count as free."""

from collections.abc import Sequence
from math import prod

import torch

ADDING = ("addmm", "addmv", "baddbmm")  # whose first argument is added to a product of the next two

# What the convention leaves out, by kind, beside the operators that torch tags as element-wise (`torch.Tag.pointwise`), by the
# names in a trace or a dispatch without a leading or trailing `_`: `add_`, in place, is `add`.
FREE = {
    "element-wise: an activation, a gate, a scale, a shortcut": """
        alpha_dropout and celu dropout elu feature_alpha_dropout feature_dropout glu hardsigmoid hardswish hardtanh
        leaky_relu log_sigmoid log_sigmoid_forward masked_fill mish native_dropout or prelu prelu_kernel relu6 rrelu selu
        softplus softshrink threshold where xor
    """,
    "normalisation: one scale and shift of an element, or folded into the convolution beside it": """
        batch_norm batch_norm_impl_index batch_norm_with_update cudnn_batch_norm fused_rms_norm group_norm
        instance_norm layer_norm linalg_norm linalg_vector_norm log_softmax native_batch_norm
        native_batch_norm_legit_no_training native_group_norm native_layer_norm norm rms_norm safe_softmax softmax std
        std_mean var var_mean weight_norm weight_norm_interface
    """,
    "pooling and reduction: no weights, one addition or comparison of an element": """
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d all amax amin any argmax argmin avg_pool1d avg_pool2d avg_pool3d count_nonzero cumsum
        fractional_max_pool2d fractional_max_pool3d logsumexp max max_pool1d max_pool1d_with_indices max_pool2d
        max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d mean median min prod sort
        sum topk
    """,
    "resampling: no weights, a few multiplications of an element": """
        affine_grid_generator grid_sampler grid_sampler_2d upsample_bicubic2d upsample_bicubic2d_aa upsample_bilinear2d
        upsample_bilinear2d_aa upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
        upsample_nearest_exact1d upsample_nearest_exact2d upsample_nearest_exact3d upsample_trilinear3d
    """,
    "copies, shapes and constants": """
        adjoint alias arange argsort as_strided atleast_1d bernoulli broadcast_tensors broadcast_to cat channel_shuffle
        chunk clone column_stack concat constant_pad_nd contiguous copy detach diag_embed diagonal dstack embedding
        empty empty_like expand expand_as eye fill flatten flip full full_like gather hstack imag index index_put
        index_select item lift_fresh linspace local_scalar_dense mH mT masked_select matrix_H meshgrid moveaxis movedim
        narrow native_channel_shuffle new_empty new_full new_ones new_zeros numel numpy_T one_hot ones ones_like pad
        permute pixel_shuffle pixel_unshuffle rand rand_like randn randn_like randperm ravel real reflection_pad1d
        reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d
        reshape reshape_alias resize roll rot90 scalar_tensor scatter scatter_add select size slice split
        split_with_sizes squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile to to_copy transpose
        tril tril_indices triu triu_indices type_as unbind unflatten unfold uniform unsafe_chunk unsafe_split
        unsafe_view unsqueeze view view_as view_as_complex view_as_real vstack zero zeros zeros_like
    """,
}
NAMES = frozenset(name for names in FREE.values() for name in names.split())


def is_free(name: str) -> bool:
    """Whether an operator, as ``aten::mul_``, is one that the convention leaves out."""
    bare = name.removeprefix("aten::").strip("_")
    if bare in NAMES:
        return True
    packet = getattr(torch.ops.aten, bare, None) or getattr(torch.ops.aten, f"__{bare}__", None)
    overloads = packet.overloads() if packet else ()
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in overloads)


def einsum_products(equation: str, shapes: Sequence[Sequence[int]], path: Sequence[int]) -> list[tuple[int, int]]:
    """Return multiply-adds and output elements of each product of two tensors that an einsum takes.

    A dimension of length 1 is none, one that is in one tensor alone is summed before, and without a sum left the product is
    element-wise, which is free.

    Args:
        path: two positions for each product, in the list of tensors that are left, to whose end its result goes; empty for
            left to right.
    """
    terms, arrow, output = equation.replace(" ", "").partition("->")
    tensors: list[set[str]] = []
    sizes: dict[str, int] = {}
    for term, shape in zip(terms.split(","), shapes, strict=True):
        long = {letter: size for letter, size in zip(_letters(term, len(shape)), shape, strict=True) if size != 1}
        tensors.append(set(long))
        sizes |= long
    if arrow:
        wanted = {letter for letter in sizes if letter in output or (letter.isdigit() and "..." in output)}
    else:
        wanted = {letter for letter in sizes if letter.isdigit() or terms.count(letter) == 1}
    products = []
    for place in range(0, 2 * (len(tensors) - 1), 2):
        other, one = (tensors.pop(position) for position in sorted(path[place : place + 2] or (0, 1), reverse=True))
        remaining = wanted.union(*tensors)
        multiplied = {letter for letter in one | other if letter in one & other or letter in remaining}
        result = multiplied & remaining
        macs = prod(sizes[letter] for letter in multiplied) if multiplied != result else 0
        products.append((macs, prod(sizes[letter] for letter in result)))
        tensors.insert(len(tensors) if path else 0, result)
    return products


def _letters(term: str, dimensions: int) -> list[str]:
    """Return a name for each dimension of an einsum's term; those of ``...`` are numbered from the last."""
    before, ellipsis, after = term.partition("...")
    others = dimensions - len(before) - len(after) if ellipsis else 0
    return [*before, *(str(number) for number in range(others, 0, -1)), *after]
