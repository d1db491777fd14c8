r"""Decoders rebuild an input from its code: linear, or with hidden layers.

Inference needs the reconstruction error of a batch as a function of the codes, and its gradient.
A decoder makes this function, the data fit (`Decoder.datafit`); the base class does so by autograd.

Inference runs in float32 or better, whatever the precision of training is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from sparse_lightning.datafits import (
    AutogradDataFit,
    DataFit,
    LeastSquares,
    QuadraticDataFit,
    ReluNetworkDataFit,
    with_normal_squares,
)
from sparse_lightning.errors import SettingError, require_count, require_positive
from sparse_lightning.inputs import at_least_float32, floating_tensors
from sparse_lightning.overrides import overrides
from sparse_lightning.registry import plain_numbers, register

Columns = tuple[Tensor, tuple[int, ...]]


class Decoder(nn.Module):
    """Base of all decoders: ``forward`` maps codes (n, l) to inputs (n, d).

    A subclass sets ``code_dim`` and ``input_dim`` and may override `datafit` with a faster one.
    """

    code_dim: int
    input_dim: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class with another ``forward`` does not inherit the data fit of the one before."""
        super().__init_subclass__(**kwargs)
        if overrides(cls, "forward", beyond="datafit"):
            cls.datafit = Decoder.datafit  # type: ignore[method-assign]

    def datafit(self, inputs: Tensor) -> DataFit:
        r"""The reconstruction term :math:`\sum_i \frac1d \|x_i - D(z_i)\|^2` of inputs x (n, d)."""
        if all(own.itemsize >= 4 for own in floating_tensors(self)):
            return AutogradDataFit(self, inputs)
        # Lightning validates in inference mode, whose tensors autograd refuses.
        with torch.inference_mode(False):
            return AutogradDataFit(copy.deepcopy(self).float(), inputs)

    def column_groups(self) -> list[Columns]:
        """Weights, bottom first, and the dimensions that one column of each extends over.

        A column is what one component of a layer's input adds to the layer's output. Unit columns
        and column norms are taken over these dimensions: of a matrix over its rows, of a
        convolution over the kernel of one input channel (exact away from borders).

        Raises:
            SettingError: for a convolution in groups, whose columns are parts of the weight, or a
                matrix of the decoder's own that has a row, not a column, for each component.
        """
        for name, own in self.named_parameters(recurse=False):
            if own.ndim == 2 and own.shape[0] == self.code_dim != own.shape[1]:
                raise SettingError(
                    f"{type(self).__name__}.{name} of shape {tuple(own.shape)} has a row for each "
                    "code component, and columns are over rows: transpose it, or write the "
                    "decoder's column_groups()."
                )
        found: dict[nn.Parameter, tuple[int, ...]] = {}
        for module in self.modules():
            for parameter in module.parameters(recurse=False):
                dims = _column_dims(module, parameter)
                if dims is not None:
                    found.setdefault(parameter, dims)
        return list(found.items())

    def column_norms(self) -> list[Tensor]:
        """The norms of the columns of each weight, bottom first, a vector each."""
        return [
            torch.linalg.vector_norm(weight.detach(), dim=dims).flatten()
            for weight, dims in self.column_groups()
        ]

    @torch.no_grad()
    def atoms(self, scale: Tensor | float = 1.0) -> Tensor:
        r"""What each code component draws: :math:`D(s_j e_j) - D(0)`, (l, d).

        Args:
            scale: :math:`s_j`, one number or (l,). A non-linear decoder's response depends on it.
        """
        # A decoder without any weight takes codes as they come.
        own = next(floating_tensors(self), torch.zeros(()))
        codes = (torch.eye(self.code_dim, device=own.device) * scale).to(own.dtype)
        return self(codes) - self(torch.zeros_like(codes[:1]))


def has_hooks(decoder: nn.Module) -> bool:
    """Whether hooks have a part in its forward pass, such as those of `torch.nn.utils.prune`.

    A weight that a hook makes is an old one until the next forward pass.
    """
    return any(own._forward_pre_hooks or own._forward_hooks for own in decoder.modules())


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _column_dims(module: nn.Module, parameter: nn.Parameter) -> tuple[int, ...] | None:
    """The dimensions of a column of a module's parameter, None where it has no columns."""
    ndim = parameter.ndim
    if isinstance(module, CONVOLUTIONS) and ndim > 2:  # (output, input, *kernel)
        if module.groups > 1:
            raise SettingError(
                f"A {type(module).__name__} with groups={module.groups} has columns that are parts "
                "of its weight: write the decoder's column_groups(), or take groups=1."
            )
        return (0, *range(2, ndim))
    if isinstance(module, TRANSPOSED_CONVOLUTIONS) and ndim > 2:  # (input, output, *kernel)
        return tuple(range(1, ndim))
    return (0,) if ndim == 2 else None


@register
class LinearDecoder(Decoder):
    """D(z) = W z + b, with ``weight`` W of shape (d, l).

    Args:
        code_dim: l.
        input_dim: d.
        has_bias: whether there is a ``bias`` b (d,), which is 0 before training; None if not.

    Example:
        >>> decoder = LinearDecoder(code_dim=128, input_dim=784)
        >>> decoder(torch.rand(5, 128)).shape, decoder.atoms().shape
        (torch.Size([5, 784]), torch.Size([128, 784]))
    """

    def __init__(self, code_dim: int, input_dim: int, has_bias: bool = False) -> None:
        super().__init__()
        require_count("model.decoder.code_dim", code_dim)
        require_count("model.decoder.input_dim", input_dim)
        self.code_dim, self.input_dim, self.has_bias = code_dim, input_dim, has_bias
        self.weight = nn.Linear(code_dim, input_dim, bias=False).weight
        self.bias = nn.Parameter(torch.zeros(input_dim)) if has_bias else None

    def forward(self, codes: Tensor) -> Tensor:
        return functional.linear(codes.to(self.weight.dtype), self.weight, self.bias)

    def datafit(self, inputs: Tensor) -> DataFit:
        if has_hooks(self):
            return super().datafit(inputs)
        if self.bias is not None:
            inputs = inputs - at_least_float32(self.bias)
        return QuadraticDataFit.of(inputs, _for_inference(self.weight))


def _linear(layers: Iterable[nn.Module], has_bias: bool = False) -> list[nn.Linear] | None:
    """The layers, None where a subclass has put in others than a decoder makes."""
    every = list(layers)
    # A parametrised layer is of a class of its own, with the forward pass of nn.Linear.
    found = [
        layer
        for layer in every
        if isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward
    ]
    is_as_made = all((layer.bias is not None) == has_bias for layer in found)
    return found if is_as_made and len(found) == len(every) else None


@register
class MultiLayerDecoder(Decoder):
    r"""A relu network: :math:`D(z) = W_K\,\mathrm{relu}(\dots \mathrm{relu}(W_1 z + b_1) \dots)`.

    Hidden layers have biases, the output has none. One hidden layer is the paper's decoder.

    Args:
        code_dim: l.
        hidden_dims: widths of the hidden layers, bottom first; at least one.
        input_dim: d.
    """

    def __init__(self, code_dim: int, hidden_dims: Sequence[int], input_dim: int) -> None:
        super().__init__()
        hidden_dims = _widths("hidden_dims", hidden_dims)
        require_count("model.decoder.code_dim", code_dim)
        require_count("model.decoder.input_dim", input_dim)
        self.code_dim, self.hidden_dims, self.input_dim = code_dim, hidden_dims, input_dim
        widths = [code_dim, *hidden_dims]
        self.hidden = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.output = nn.Linear(widths[-1], input_dim, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = codes.to(self.output.weight.dtype)
        for layer in self.hidden:
            codes = torch.relu(layer(codes))
        return self.output(codes)

    def datafit(self, inputs: Tensor) -> DataFit:
        layers, output = _linear(self.hidden, has_bias=True), _linear([self.output])
        if layers is None or output is None or has_hooks(self):
            return super().datafit(inputs)
        hidden = [(_for_inference(layer.weight), at_least_float32(layer.bias)) for layer in layers]
        return ReluNetworkDataFit(hidden, LeastSquares(inputs, _for_inference(self.output.weight)))


@register
class LinearNetworkDecoder(Decoder):
    r"""A network of linear layers alone: :math:`D(z) = W_K \dots W_1 z`.

    It has the weights of a `MultiLayerDecoder` and draws no more than a `LinearDecoder` does: a
    control for what a hidden layer owes to its relu. Inference sees one matrix, their product.

    Args:
        code_dim: l.
        hidden_dims: widths of the hidden layers, bottom first; at least one.
        input_dim: d.
    """

    def __init__(self, code_dim: int, hidden_dims: Sequence[int], input_dim: int) -> None:
        super().__init__()
        hidden_dims = _widths("hidden_dims", hidden_dims)
        require_count("model.decoder.code_dim", code_dim)
        require_count("model.decoder.input_dim", input_dim)
        self.code_dim, self.hidden_dims, self.input_dim = code_dim, hidden_dims, input_dim
        widths = [code_dim, *hidden_dims, input_dim]
        layers = [nn.Linear(*pair, bias=False) for pair in pairwise(widths)]
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes.to(next(self.parameters()).dtype))

    def datafit(self, inputs: Tensor) -> DataFit:
        layers = _linear(self.layers)
        if layers is None or has_hooks(self):
            return super().datafit(inputs)
        product, *others = (at_least_float32(layer.weight) for layer in layers)
        for weight in others:
            product = weight @ product
        return QuadraticDataFit.of(inputs, with_normal_squares(product))


@register
class ConvolutionalDecoder(Decoder):
    r"""Codes make feature maps, and convolutions make an image of them.

    A linear layer makes ``channels[0]`` maps of :math:`h/2^K \times w/2^K` pixels, K being the
    number of entries. Each of K transposed convolutions (4 × 4, stride 2) then doubles height and
    width; the last one draws the c channels of the image. A relu with biases comes before each of
    them, as in `MultiLayerDecoder`, and the image has none.

    Args:
        code_dim: l.
        channels: feature maps before each convolution, bottom first; at least one number.
        input_dim: d = c h w.
        image_shape: (h, w) of grey images, for which c = 1, or (c, h, w); h and w are multiples of
            :math:`2^K`.

    Raises:
        SettingError: numbers that are not whole and positive, or an image that the maps cannot
            reach.
    """

    def __init__(
        self, code_dim: int, channels: Sequence[int], input_dim: int, image_shape: Sequence[int]
    ) -> None:
        super().__init__()
        channels, image_shape = _widths("channels", channels), _widths("image_shape", image_shape)
        require_count("model.decoder.code_dim", code_dim)
        _require_image(image_shape, input_dim, 2 ** len(channels))
        self.code_dim, self.channels = code_dim, channels
        self.input_dim, self.image_shape = input_dim, image_shape
        colours = 1 if len(image_shape) == 2 else image_shape[0]
        height, width = (side // 2 ** len(channels) for side in image_shape[-2:])
        self.maps = nn.Linear(code_dim, channels[0] * height * width)
        self.unflatten = nn.Unflatten(1, (channels[0], height, width))
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(below, above, 4, stride=2, padding=1, bias=layer < len(channels))
            for layer, (below, above) in enumerate(zip(channels, [*channels[1:], colours]), 1)
        )

    def forward(self, codes: Tensor) -> Tensor:
        maps = self.unflatten(self.maps(codes.to(self.maps.weight.dtype)))
        for convolution in self.convolutions:
            maps = convolution(torch.relu(maps))
        return maps.flatten(1)


def _widths(name: str, widths: Sequence[int]) -> list[int]:
    """Whole numbers of a setting that lists at least one."""
    if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) == 0:
        raise SettingError(f"model.decoder.{name}={widths} must list at least one whole number.")
    for layer, width in enumerate(widths):
        require_count(f"model.decoder.{name}[{layer}]", width)
    return [int(width) for width in widths]


def _require_image(image_shape: list[int], input_dim: int, factor: int) -> None:
    """Raise `SettingError` unless images have d values, and sides that are multiples."""
    if len(image_shape) not in (2, 3) or math.prod(image_shape) != input_dim:
        raise SettingError(
            f"model.decoder.image_shape={image_shape} must be a height and a width, or channels, a "
            f"height and a width, of model.decoder.input_dim={input_dim} values in all."
        )
    if any(side % factor for side in image_shape[-2:]):
        order = ", or let the colours come first" if image_shape[2:] == [3] else ""
        raise SettingError(
            f"model.decoder.image_shape={image_shape} must have a height and a width that are "
            f"multiples of {factor}, since each entry of model.decoder.channels doubles the sides: "
            f"take fewer entries, or images of other sides{order}."
        )


def _for_inference(weight: Tensor) -> Tensor:
    """A weight detached, in float32 or better, without numbers whose square is subnormal."""
    return with_normal_squares(at_least_float32(weight))


@register
@dataclass(frozen=True)
class UnitColumns:
    """Constraint: every column of every weight of a decoder has this norm.

    The classical remedy against codes that shrink while the dictionary grows. A column of zeros
    has no direction and stays.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        require_positive("model.constraint.norm", self.norm)

    @torch.no_grad()
    def __call__(self, decoder: Decoder) -> None:
        """Rescale the columns in place.

        Raises:
            SettingError: the decoder has no columns, or weights that other parameters make.
        """
        is_own = type(decoder).column_groups is not Decoder.column_groups
        if not is_own and any(map(is_parametrized, decoder.modules())):
            raise SettingError(
                f"model.constraint.norm={self.norm} cannot hold: {type(decoder).__name__} has "
                "parametrised weights. Set model.constraint=null, or write its column_groups()."
            )
        groups = decoder.column_groups()
        if not groups:
            raise SettingError(
                f"model.constraint.norm={self.norm} cannot hold: {type(decoder).__name__} has no "
                "columns (its column_groups() is empty). Set model.constraint=null."
            )
        for weight, dims in groups:
            norms = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
            weight.mul_(torch.where(norms > 0, self.norm / norms, 1.0))
