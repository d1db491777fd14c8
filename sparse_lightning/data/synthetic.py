r"""Inputs made from a dictionary that is known, so that one can ask whether learning finds it.

Each code z has k active components of l, drawn without preference, whose amplitudes are uniform in
[0.5, 1.5], with random signs if codes have signs. The input is

.. math:: x = s\,(A z + \sigma \epsilon) \quad \text{or} \quad
          x = s\,(A\,\mathrm{relu}(B z) + \sigma \epsilon)

with standard Gaussian noise :math:`\epsilon`. The matrices are Gaussian, their columns have norm 1.
:math:`\sigma` is a share of the standard deviation of the noiseless inputs, and s makes that of the
training inputs 1.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from sparse_lightning.data.batch import TensorSlices
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import SettingError, require_count, require_non_negative

SMALLEST, LARGEST = 0.5, 1.5


class SyntheticDictionary(SplitDataModule):
    """Sparse combinations of random atoms, seen as they are or through a random hidden layer.

    Args:
        input_dim: d, at least 2.
        num_atoms: l.
        num_active: k, active components of each code, from 1 to l.
        noise: standard deviation of the noise, as a share of that of the noiseless inputs.
        hidden_dim: hidden units between codes and inputs, null for none.
        signed: whether codes have signs, which a hidden layer does not allow.
        generator_seed: fixes the atoms and all samples.
        batch_size: samples in a batch.
        num_train, num_val, num_test: samples of each split.
        shuffle_seed: fixes the order of training samples in each epoch.
        drop_last: leave out the last, incomplete batch of training.

    Attributes:
        codes: by split, the codes (n, l) that the samples were made from.
        scale: s.

    Raises:
        SettingError: a setting outside these bounds.
    """

    is_the_same_everywhere = True

    def __init__(
        self,
        input_dim: int = 64,
        num_atoms: int = 96,
        num_active: int = 4,
        noise: float = 0.1,
        hidden_dim: int | None = None,
        signed: bool = False,
        generator_seed: int = 0,
        batch_size: int = 250,
        num_train: int = 20_000,
        num_val: int = 2_000,
        num_test: int = 2_000,
        shuffle_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        sizes = {"train": num_train, "val": num_val, "test": num_test}
        super().__init__(sizes, batch_size, shuffle_seed, drop_last)
        counts = {"input_dim": input_dim, "num_atoms": num_atoms, "num_active": num_active}
        for name, count in counts.items():
            require_count(f"data.{name}", count)
        require_non_negative("data.noise", noise)
        if num_active > num_atoms:
            raise SettingError(
                f"data.num_active={num_active} must not exceed data.num_atoms={num_atoms}."
            )
        if hidden_dim is not None:
            require_count("data.hidden_dim", hidden_dim)
            if signed:
                raise SettingError(
                    f"data.signed=true with data.hidden_dim={hidden_dim} gives each component two "
                    "atoms, one for each sign: set data.signed=false or data.hidden_dim=null."
                )
        self.input_dim, self.num_atoms, self.num_active = input_dim, num_atoms, num_active
        self.noise, self.hidden_dim, self.signed = noise, hidden_dim, signed
        self.generator_seed = generator_seed
        self.codes: dict[str, Tensor] = {}
        self.scale = 1.0
        generator = self._generator(0)
        widths = [width for width in (num_atoms, hidden_dim, input_dim) if width is not None]
        self.weights = [
            _unit_columns(torch.randn(above, below, generator=generator))
            for below, above in pairwise(widths)
        ]

    @property
    def title(self) -> str:
        """What figures say of the data."""
        layer = "" if self.hidden_dim is None else f", hidden layer of {self.hidden_dim}"
        return (
            f"synthetic ({self.num_active} of {self.num_atoms} atoms active, "
            f"noise {self.noise:g}{layer})"
        )

    def atoms(self) -> Tensor:
        """What each component of the codes adds by itself, (l, d), of norm 1."""
        return _unit_columns(self._noiseless(torch.eye(self.num_atoms)).T).T

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        made = {}
        for place, (split, count) in enumerate(self.sizes.items(), 1):
            # A split of its own stream: its size changes no other split.
            generator = self._generator(place)
            self.codes[split] = self._draw_codes(count, generator)
            noise = torch.randn(count, self.input_dim, generator=generator)
            made[split] = self._noiseless(self.codes[split]), noise
        level = self.noise * made["train"][0].std()
        inputs = {split: clean + level * noise for split, (clean, noise) in made.items()}
        self.scale = 1 / float(inputs["train"].std())
        for split, values in inputs.items():
            self.splits[split] = TensorSlices(self.scale * values)

    def _draw_codes(self, count: int, generator: torch.Generator) -> Tensor:
        order = torch.rand(count, self.num_atoms, generator=generator)
        is_active = order <= order.kthvalue(self.num_active, dim=1, keepdim=True).values
        sizes = torch.rand(count, self.num_atoms, generator=generator)
        codes = is_active * (SMALLEST + (LARGEST - SMALLEST) * sizes)
        if self.signed:
            codes *= torch.randint(0, 2, codes.shape, generator=generator) * 2 - 1
        return codes

    def _noiseless(self, codes: Tensor) -> Tensor:
        """(n, l) -> (n, d)."""
        *hidden, output = self.weights
        for weight in hidden:
            codes = torch.relu(codes @ weight.T)
        return codes @ output.T

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(1_000_003 * self.generator_seed + stream)


def _unit_columns(weight: Tensor) -> Tensor:
    return weight / torch.linalg.vector_norm(weight, dim=0)
