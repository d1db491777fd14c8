"""When it pays to go on by what samples have in common, or piece by piece.

Counted in multiplications for one sample, of large matrix products; other work counts by how long
it takes beside them, as measured on two cores.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sparse_lightning.least_squares import LinearLeastSquares
from sparse_lightning.pieces.sizes import bytes_of
from sparse_lightning.pieces.usual import UsualTerm
from sparse_lightning.products import advantage, relu_layer
from sparse_lightning.reconstruction import MultiLayerTerm
from sparse_lightning.smooth import Outlook, SmoothTerm

# Bytes of what is known of all samples, above which there are no pieces.
LARGEST = 2**29
# The least that is to be saved, in all samples: pieces may have to be compiled, and so may sums
# over the few units in which samples differ.
LEAST, LEAST_IN_COMMON = 1.5e9, 3e8
# By how much pieces have to be the cheaper ones, since one cannot see what is to come.
MARGIN = 1.6
# By how much a gradient has to take less work, since it is not known that well.
MARGIN_OF_ONE = 1.25
# What share of the gradients to come each sample will take, where samples may be done before; and
# how many at least, if there is little to lose.
OF_A_GUESS, AT_LEAST = 0.5, 10
# Looks of the search for each one here, the first that is worth one, and samples looked at.
EVERY, EARLY, SAMPLES = 5, 3, 50
# Units that will yet switch, by those that lie between the last codes and their extrapolation.
STILL_TO_SWITCH = 8
# Ever more units switch at first: that is over once they cost this share of the most they did,
# or were never more than that share of what rows cost.
PAST, LITTLE = 0.8, 0.05
# Work for a number in a sum over few rows, in what loops learn and switch, in a small product, and
# for one that is put together for such products; beside torch's own large products.
SUMMED, LOOPED, SMALL, COPIED = 2, 6, 1, 100
# The same for each hidden unit that is looked at, and for each number of A that is looked up.
LISTED, LOOKED_UP = 40, 35
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
    """The same function in another way, where the gradients to come are worth it.

    At first, where samples differ little, by what they have in common; later piece by piece.
    """
    if not isinstance(smooth, MultiLayerTerm | UsualTerm):
        return smooth
    network = smooth if isinstance(smooth, MultiLayerTerm) else smooth.network
    is_due = outlook.looks > 0 and outlook.looks % EVERY == 0
    if not (is_due or outlook.looks == EARLY) or not _can_be(network, outlook):
        return smooth
    state = state_of(network, outlook)
    own = cost_of(smooth, state)
    if is_due and _fits(network, outlook.codes) and pays(network, outlook, state, own):
        from sparse_lightning.pieces.term import PiecewiseTerm  # takes long to import

        return PiecewiseTerm.at(network, outlook.point)
    if smooth is network:
        return UsualTerm.at(network, outlook.point) if common(network, outlook, state) else network
    return smooth if own < network.multiplications else network


def _can_be(network: MultiLayerTerm, outlook: Outlook) -> bool:
    codes = outlook.codes
    is_for_loops = len(network.hidden) == 1 and codes.device.type == "cpu" and len(codes) > 0
    return is_for_loops and network.may_be_in_pieces and _is_large(network, outlook)


def _is_large(network: MultiLayerTerm, outlook: Outlook) -> bool:
    """Whether all that is to come is worth a look at some samples."""
    gradients = _to_come(outlook, AT_LEAST)
    return gradients * len(outlook.codes) * network.multiplications >= LEAST_IN_COMMON


def _fits(network: MultiLayerTerm, codes: Tensor) -> bool:
    """Whether there is memory for what is known of each sample."""
    n, length = codes.shape
    return bytes_of(n, len(network.hidden[0][0]), length, codes.element_size()) <= LARGEST


def common(network: MultiLayerTerm, outlook: Outlook, state: State) -> bool:
    """Whether gradients by what samples have in common cost less than the network's."""
    own, by_common, n = network.multiplications, in_common(network, state), len(outlook.codes)
    m, length = network.hidden[0][0].shape
    to_learn = _for_all(network, n) + m * length
    saved = _to_come(outlook, AT_LEAST) * (own - by_common)
    is_less = MARGIN_OF_ONE * by_common < own
    return is_less and MARGIN * to_learn < saved and n * saved > LEAST_IN_COMMON


def _to_come(outlook: Outlook, at_least: int = 0) -> float:
    """Gradients of each sample; where that is a guess, no fewer than so many."""
    guess = max(at_least, OF_A_GUESS * outlook.gradients)
    return outlook.gradients if outlook.is_known else guess


def pays(network: MultiLayerTerm, outlook: Outlook, state: State, own: float) -> bool:
    """Whether the pieces' gradients, and what they have to learn, cost less than others do.

    Not yet, while more and more units switch, or while what is to be learned gets less by more than
    the other gradients cost meanwhile, as it does while codes become sparse. What that was at the
    last look is noted in ``outlook``.

    Args:
        network: whose gradients these are.
        outlook: what is to come.
        state: of the samples.
        own: what a gradient costs now.
    """
    n, gradients = len(outlook.codes), _to_come(outlook)
    if gradients * n * own < LEAST:
        return False
    costs = costs_of(network, state, n)
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
    rows = (COPIED + SMALL * atoms) * others * (others + 2 * length)
    known = bytes_of(count, m, length, network.hidden[0][0].element_size())
    slower = BEYOND_CACHE if known > CACHE else 1
    changed = slower * LOOPED * switching * length * (others + 2 * atoms)
    gradient = slower * SUMMED * atoms * m + changed
    rows, units, gradient = (
        advantage() * work for work in (rows, STILL_TO_SWITCH * changed, gradient)
    )
    return Costs(_for_all(network, count) + rows, units, gradient)


def in_common(network: MultiLayerTerm, state: State) -> float:
    """Of a gradient by what samples have in common, said for one."""
    m, length = network.hidden[0][0].shape
    atoms, _, others = state
    in_loops = LISTED * m + LOOKED_UP * others**2 + LOOPED * others * (2 * length + atoms)
    return m * length + advantage() * in_loops


def cost_of(smooth: MultiLayerTerm | UsualTerm, state: State) -> float:
    """Of a gradient as it is made now, said for one sample."""
    if isinstance(smooth, MultiLayerTerm):
        return smooth.multiplications
    return in_common(smooth.network, state._replace(others=smooth.others))


def _for_all(network: MultiLayerTerm, count: int) -> float:
    """Of what follows from the decoder alone, its Gram form and the usual piece, by sample."""
    m, length = network.hidden[0][0].shape
    cost = m * length * (m + length)
    if isinstance(network.top, LinearLeastSquares):
        cost += m * network.top.inputs.shape[1] * (m + count)
    return cost / count
