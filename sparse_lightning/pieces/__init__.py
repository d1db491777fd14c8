r"""Gradients of a relu network with one hidden layer, piece by piece.

As long as the same hidden units are active, the network is linear in the code. With a code
:math:`y = (z, 1)`, weights and biases :math:`W = (W_1, b)` of the hidden units, 0 or 1 for each of
them on the diagonal of M, and the squared error :math:`\frac12 h^\top A h - c^\top h` of their
activations h, the gradient by z is all but the last component of

.. math:: Q y - W^\top M c, \qquad Q = W^\top M A M W .

That is a sum over the few atoms that are active, of one row of Q each, where the network takes a
product with A. All of this is exact but for rounding, at any codes; how fast it is depends on how
many units switch.

**Where Q comes from.** Samples have most units in common. Let U be M of the *usual* piece, on which
each unit is as it is in most samples, with :math:`P = A U W` and :math:`Q_U = W^\top U P`. Where a
sample differs from it in units E only, by signs S (1 for a unit that is active in this sample, -1
for one that is not),

.. math::
    Q = Q_U + W_E^\top S P_E + P_E^\top S W_E + W_E^\top S A_{EE} S W_E ,

which takes a tenth of the work that products with A would, before learning, and a thirtieth after
it. Rows of Q are made when their atom is first active.

**Units that switch.** Towards the end of an inference few do, and they are those on whose kinks the
code rests, again and again. So a sample stays on its piece, and its gradient is mended for the
units F that are not as they are on it. Let :math:`v_j` be the input of unit j, with the sign
:math:`s_j` by which it counts, :math:`r_j = e_j^\top A M W` what is kept of it, and :math:`c_j` its
part of c:

.. math::
    \sum_{j \in F} v_j r_j + s_j \Big( r_j^\top y - c_j + \sum_{k \in F} A_{jk} v_k \Big) w_j .

A unit that will not switch back for a while becomes part of the piece, by a change of rank two of
Q; where very many have switched, Q is made anew.

**Before that**, while many units switch, nothing is learned of a sample: its gradient is that of
the usual piece and what the units E make of it (`usual`).

- `sizes`, `arrays`: what is known of each sample;
- `common`: what follows from the decoder;
- `usual`, `compiled_usual`: the smooth function that a solver sees at first;
- `rows`, `compiled_rows`: Q of all samples, where the search goes over to pieces;
- `loops`: which units switch, and what follows;
- `term`: the smooth function that a solver sees from then on;
- `cost`: when all this pays.
"""
