"""Whether the parts of a model fit together: told when it is made, and not in its first batch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparse_lightning.decoders import Decoder
from sparse_lightning.encoders import Encoder
from sparse_lightning.errors import SettingError
from sparse_lightning.inputs import in_type_of
from sparse_lightning.penalties import Penalty
from sparse_lightning.solvers import Solver
from sparse_lightning.training_rules import TrainingRule

if TYPE_CHECKING:
    from sparse_lightning.model import SparseAutoencoder


def require_parts_fit(model: SparseAutoencoder) -> None:
    """Raise `SettingError`, which names the two parts of a model that do not fit each other."""
    _require_bases(model)
    rule, encoder, penalty = model.training_rule, model.encoder, model.energy.penalty
    rule.require_fit(model)
    if any(own.requires_grad for own in rule.parameters()):
        raise SettingError(
            f"model.training_rule={type(rule).__name__} has parameters, which the optimizer of "
            "decoder and encoder does not train: let either of these two have them, or set "
            "requires_grad_(False)."
        )
    if encoder is None and model.energy.encoder_weight > 0:
        raise SettingError(
            f"model.energy.encoder_weight={model.energy.encoder_weight} needs an encoder, and "
            "model.encoder is null: set model.energy.encoder_weight=0 or choose an encoder."
        )
    if rule.infers:
        _require_one_function(model.decoder)
    penalty.require_fit(model.decoder.code_dim)
    _require_penalty_of(penalty, model.decoder.code_dim)
    if encoder is not None:
        _require_signs_of(penalty, encoder)
        _require_encoder_of(model.decoder, encoder)
        _require_codes_of(encoder)


def _require_bases(model: SparseAutoencoder) -> None:
    """Raise `SettingError` unless parts inherit and tell what all of the package relies on."""
    for name, part, base in (
        ("decoder", model.decoder, Decoder),
        ("encoder", model.encoder, Encoder),
        ("energy.penalty", model.energy.penalty, Penalty),
        ("solver", model.solver, Solver),
        ("training_rule", model.training_rule, TrainingRule),
    ):
        if not isinstance(part, base) and (name != "encoder" or part is not None):
            raise SettingError(
                f"model.{name}={type(part).__name__} is no {base.__name__}: let the class inherit "
                f"from {base.__module__}.{base.__name__}."
            )
    for name, part in (("decoder", model.decoder), ("encoder", model.encoder)):
        for size in ("code_dim", "input_dim"):
            if part is not None and not hasattr(part, size):
                raise SettingError(
                    f"model.{name}={type(part).__name__} does not tell its {size}: set "
                    f"self.{size} in its constructor."
                )


# Layers whose output is another at each call, or depends on the batch.
UNSTEADY = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
)


def _require_one_function(decoder: Decoder) -> None:
    """Raise `SettingError` for a decoder that is not one function of a code alone."""
    wrong = next((layer for layer in decoder.modules() if isinstance(layer, UNSTEADY)), None)
    if wrong is not None:
        raise SettingError(
            f"model.decoder={type(decoder).__name__} has a {type(wrong).__name__}, with which a "
            "code has another reconstruction at each call or in each batch, and inference has "
            "nothing to minimise: leave it out, or take LayerNorm or GroupNorm."
        )


def _require_penalty_of(penalty: Penalty, code_dim: int) -> None:
    """Raise `SettingError` if value or prox give another shape, or prox forbidden signs.

    A threshold may be a number, or one for each code, (n, 1), and it may be 0.
    """
    codes = torch.linspace(-1, 1, 3 * code_dim).view(3, code_dim)
    thresholds = torch.tensor([[0.0], [0.01], [0.3]])
    found = torch.cat([penalty.prox(row[None], float(t)) for row, t in zip(codes, thresholds)])
    if found.shape != codes.shape:
        told = f"prox gives codes of shape {list(found.shape)} for those of {list(codes.shape)}"
    elif not penalty.is_signed and bool((found < 0).any()):
        told = "prox gives negative codes, which is_signed=False does not allow"
    elif (values := penalty.value(found)).shape != (3,):
        told = f"value gives the shape {list(values.shape)} for 3 codes: return one for each, (n,)"
    elif (wrong := _told_of_thresholds(penalty, codes, thresholds, found)) is not None:
        told = f"prox {wrong} where each code has a threshold of its own, of shape (n, 1)"
    else:
        return
    raise SettingError(f"model.energy.penalty={type(penalty).__name__}: {told}.")


def _told_of_thresholds(
    penalty: Penalty, codes: Tensor, thresholds: Tensor, expected: Tensor
) -> str | None:
    """What is wrong with a prox whose thresholds are (n, 1), None where nothing is."""
    try:
        found = penalty.prox(codes, thresholds)
    except Exception as error:  # What a user wrote may fail in any way.
        return f"fails ({type(error).__name__}: {error})"
    if found.shape == codes.shape and torch.allclose(found, expected, atol=1e-6, equal_nan=True):
        return None
    return "gives other codes"


def _require_signs_of(penalty: Penalty, encoder: Encoder) -> None:
    if penalty.is_signed and not encoder.is_signed:
        raise SettingError(
            f"model.energy.penalty={type(penalty).__name__} gives codes with signs, which "
            f"model.encoder={type(encoder).__name__} cannot predict: set "
            "model/encoder=signed_lista or another encoder whose is_signed is true, or "
            "model.encoder=null."
        )
    if encoder.is_signed and not penalty.is_signed:
        raise SettingError(
            f"model.encoder={type(encoder).__name__} predicts codes with signs, which "
            f"model.energy.penalty={type(penalty).__name__} does not allow: set "
            "model/energy/penalty=l1 or another penalty whose is_signed is true, or "
            "model/encoder=lista."
        )


def _require_codes_of(encoder: Encoder) -> None:
    """Raise `SettingError` if an encoder gives signs that it does not tell of."""
    if encoder.is_signed:
        return
    inputs = torch.linspace(-1, 1, 2 * encoder.input_dim).view(2, encoder.input_dim)
    # A copy, whose statistics of batches may change.
    probed = copy.deepcopy(encoder).cpu().eval()
    with torch.no_grad():
        codes = probed(in_type_of(probed, inputs))
    if bool((codes < 0).any()):
        raise SettingError(
            f"model.encoder={type(encoder).__name__} gives negative codes, which is_signed=False "
            "does not allow: end its forward() with a relu, or set is_signed = True and a penalty "
            "with signs, model/energy/penalty=l1."
        )


def _require_encoder_of(decoder: Decoder, encoder: Encoder) -> None:
    for name in ("code_dim", "input_dim"):
        ours, theirs = getattr(decoder, name), getattr(encoder, name)
        if ours != theirs:
            raise SettingError(
                f"model.decoder.{name}={ours} and model.encoder.{name}={theirs} must be equal."
            )
    if encoder.needs_preactivations and not encoder.gives_preactivations:
        raise SettingError(
            f"model.encoder={type(encoder).__name__} has a forward of its own and learns by its "
            "pre-activations: write its encode_with_preactivations() as well."
        )
    if encoder.subtracts_decoder_bias and getattr(decoder, "bias", None) is None:
        raise SettingError(
            f"model.encoder={type(encoder).__name__} subtracts the decoder's bias, and "
            f"model.decoder={type(decoder).__name__} has none: set model.decoder.has_bias=true or "
            "model.encoder.subtracts_decoder_bias=false."
        )
