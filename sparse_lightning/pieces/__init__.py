r"""Gradients of a relu network with one hidden layer, piece by piece.

As long as the same hidden units are active, the network is linear in the code. With a code
:math:`y = (z, 1)`, weights and biases :math:`W = (W_1, b)` of the hidden units, 0 or 1 for each of
them on the diagonal of M, and the squared error :math:`\frac12 h^\top A h - c^\top h` of their
activations h, the gradient by z is all but the last component of

.. math:: Q y - W^\top M c, \qquad Q = W^\top M A M W .

That is a sum over the few atoms that are active, of one row of Q each, where the network takes a
product with A. When unit j switches on, with :math:`w_j` its row of W and
:math:`u_j = W^\top M A e_j`,

.. math:: Q \leftarrow Q + w_j u_j^\top + u_j w_j^\top + A_{jj} w_j w_j^\top ,

and with the opposite sign when it switches off. Towards the end of an inference few units switch,
and they are those on whose kinks the code rests, again and again; so each sample keeps the
:math:`u_j` of the last of them.

Rows of Q are made when their atom is first active. All of this is exact but for rounding, at any
codes; how fast it is depends on how many units switch.

- `sizes`, `arrays`: what is known of each sample;
- `loops`: which units switch, and what follows;
- `term`: the smooth function that a solver sees;
- `cost`: when all this pays.
"""
