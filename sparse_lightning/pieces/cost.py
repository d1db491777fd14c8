"""When it pays to go on piece by piece.

Counted in multiplications for one sample, of large matrix products; other work counts by how long
it takes beside them, as measured on two cores.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sparse_lightning.least_squares import LinearLeastSquares
from sparse_lightning.pieces.sizes import bytes_of
from sparse_lightning.products import advantage, relu_layer
from sparse_lightning.reconstruction import MultiLayerTerm
from sparse_lightning.smooth import Outlook, SmoothTerm

# Bytes of what is known of all samples, above which there are no pieces.
LARGEST = 2**29
# The least that is to be saved, in all samples: pieces may have to be compiled.
LEAST = 1.5e9
# By how much pieces have to be the cheaper ones, since one cannot see what is to come.
MARGIN = 1.6
# What share of the gradients to come each sample will take, where samples may be done before.
OF_A_GUESS = 0.5
# Looks of the search for each one here, and samples that are looked at.
EVERY, SAMPLES = 5, 50
# Units that will yet switch, by those that lie between the last codes and their extrapolation.
STILL_TO_SWITCH = 8
# Ever more units switch at first: that is over once they cost this share of the most they did,
# or were never more than that share of what rows cost.
PAST, LITTLE = 0.8, 0.05
# Work for a number in a sum over few rows, in what loops learn and switch, in a small product, and
# for one that is put together for such products; beside torch's own large products.
SUMMED, LOOPED, SMALL, COPIED = 2, 6, 1, 100
# How many times as long loops take where what is known does not fit into a processor's cache.
CACHE, BEYOND_CACHE = 2**26, 2


class State(NamedTuple):
    """Means over samples.

    Attributes:
        atoms: that are active.
        switching: units between the last code and its extrapolation.
        others: units that are not as they are in most samples.
    """

    atoms: float
    switching: float
    others: float


class Costs(NamedTuple):
    """Of going on piece by piece.

    Attributes:
        rows, units: what has to be learned for rows of Q, and for units that switch.
        gradient: each gradient then.
    """

    rows: float
    units: float
    gradient: float


def in_pieces(smooth: SmoothTerm, outlook: Outlook) -> SmoothTerm:
    """The same function piece by piece, where the gradients to come are worth it."""
    if outlook.looks == 0 or outlook.looks % EVERY or not isinstance(smooth, MultiLayerTerm):
        return smooth
    if not _can_be(smooth, outlook.codes) or not pays(smooth, outlook):
        return smooth
    from sparse_lightning.pieces.term import PiecewiseTerm  # takes long to import

    return PiecewiseTerm.at(smooth, outlook.point)


def _can_be(network: MultiLayerTerm, codes: Tensor) -> bool:
    if len(network.hidden) > 1 or codes.device.type != "cpu" or len(codes) == 0:
        return False
    n, length = codes.shape
    size = bytes_of(n, len(network.hidden[0][0]), length, codes.element_size())
    return network.may_be_in_pieces and size <= LARGEST


def pays(network: MultiLayerTerm, outlook: Outlook) -> bool:
    """Whether the pieces' gradients, and what they have to learn, cost less than the network's.

    Not yet, while more and more units switch, or while what is to be learned gets less by more than
    the network's gradients cost meanwhile, as it does while codes become sparse. What that was at
    the last look is noted in ``outlook``.
    """
    own, n = network.multiplications, len(outlook.codes)
    gradients = outlook.gradients if outlook.is_known else OF_A_GUESS * outlook.gradients
    if gradients * n * own < LEAST:
        return False
    costs = costs_of(network, state_of(network, outlook), n)
    to_learn = costs.rows + costs.units
    falls = outlook.to_learn - to_learn
    outlook.to_learn, outlook.most_units = to_learn, max(outlook.most_units, costs.units)
    saved = gradients * (own - costs.gradient)
    is_past_the_most = costs.units <= max(PAST * outlook.most_units, LITTLE * costs.rows)
    is_settled = is_past_the_most and falls < EVERY * own
    return is_settled and MARGIN * to_learn < saved and n * saved > LEAST


def state_of(network: MultiLayerTerm, outlook: Outlook) -> State:
    """What some of the samples say."""
    weight, bias = network.hidden[0]
    step = max(1, len(outlook.codes) // SAMPLES)
    codes, point = outlook.codes[::step], outlook.point[::step]
    before, now = (relu_layer(z, weight, bias) > 0 for z in (codes, point))
    usual = 2 * now.sum(0) > len(now)
    numbers = point != 0, now ^ before, now ^ usual
    return State(*(int(number.count_nonzero()) / len(point) for number in numbers))


def costs_of(network: MultiLayerTerm, state: State, count: int) -> Costs:
    """For ``count`` samples in that state; each is said for one."""
    m, length = network.hidden[0][0].shape
    atoms, switching, others = state
    for_all = m * length * (m + length)
    if isinstance(network.top, LinearLeastSquares):
        for_all += m * network.top.inputs.shape[1] * (m + count)
    rows = (COPIED + SMALL * atoms) * others * (others + 2 * length)
    known = bytes_of(count, m, length, network.hidden[0][0].element_size())
    slower = BEYOND_CACHE if known > CACHE else 1
    changed = slower * LOOPED * switching * length * (others + 2 * atoms)
    gradient = slower * SUMMED * atoms * m + changed
    rows, units, gradient = (
        advantage() * work for work in (rows, STILL_TO_SWITCH * changed, gradient)
    )
    return Costs(for_all / count + rows, units, gradient)
