r"""A decoder of your own: one layer of transposed convolution.

The code is a few small feature maps, and each component draws its map's kernel at its own place:

.. math:: D(z) = \sum_k d_k * \uparrow z_k ,

as in Zeiler, Krishnan, Taylor & Fergus, "Deconvolutional Networks", CVPR 2010. Inference needs
nothing but ``forward``: autograd gives the gradient. The columns that unit columns are about are
those of the convolution, the kernels, which the base class finds.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from sparse_lightning import Decoder, register
from sparse_lightning.errors import SettingError


@register
class ConvolutionalDictionary(Decoder):
    """Kernels shared by all places of a square image.

    Args:
        code_dim: l, a multiple of the number of places, (side / stride)².
        input_dim: d = side².
        stride: pixels between two places.
        kernel_size: side of a kernel; ``kernel_size - stride`` is even, so that images keep their
            size.
    """

    def __init__(
        self, code_dim: int, input_dim: int, stride: int = 2, kernel_size: int = 6
    ) -> None:
        super().__init__()
        # By the names of the arguments: a checkpoint describes the decoder by them.
        self.code_dim, self.input_dim = code_dim, input_dim
        self.stride, self.kernel_size = stride, kernel_size
        side = math.isqrt(input_dim)
        self.places = side // stride
        if side**2 != input_dim or side % stride or code_dim % self.places**2:
            raise SettingError(
                f"model.decoder.code_dim={code_dim} must be a multiple of (side / stride)², and "
                f"model.decoder.input_dim={input_dim} the square of a multiple of stride={stride}."
            )
        self.num_maps = code_dim // self.places**2
        self.kernels = nn.ConvTranspose2d(
            self.num_maps, 1, kernel_size, stride, padding=(kernel_size - stride) // 2, bias=False
        )

    def forward(self, codes: Tensor) -> Tensor:
        """(n, l) -> (n, d)."""
        maps = codes.to(self.kernels.weight.dtype)
        maps = maps.unflatten(-1, (self.num_maps, self.places, self.places))
        return self.kernels(maps).flatten(-3)
