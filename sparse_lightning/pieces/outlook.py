"""What is remembered between two looks at whether pieces would pay."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Outlook:
    """In multiplications for a sample.

    Attributes:
        to_learn: what pieces would have had to learn at the last look.
        most_units: the most of it that were units which switch, at any look.
    """

    to_learn: float = math.inf
    most_units: float = 0.0
