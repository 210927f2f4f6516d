"""How sure the mean of bounded losses is: the p-value of Hoeffding and Bentkus and the upper bound that follows.

Knows numbers; knows nothing about texts, policies or how rows were chosen.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import binom

TOLERANCE = 1e-9  # of a bound


def p_value(mean: float, rows: int, level: float) -> float:
    """P-value of the hypothesis that losses in [0, 1] have an expectation above ``level``.

    Angelopoulos et al., Learn then Test (2021), section 3.1; Bates et al., JACM 2021, theorem 4: the smaller of
    Hoeffding's exp(-n KL(mean, level)) and Bentkus' e P(Binomial(n, level) <= ceil(n mean)).

    Args:
        mean: of ``rows`` independent losses of one distribution.
        level: in (0, 1).
    """
    if mean >= level:
        return 1.0
    hoeffding = math.exp(-rows * _divergence(mean, level))
    bentkus = math.e * float(binom.cdf(math.ceil(rows * mean), rows, level))
    return min(1.0, hoeffding, bentkus)


def upper_bound(mean: float, rows: int, delta: float) -> float:
    """What the expectation of losses in [0, 1] stays below with probability ``1 - delta``: ``p_value`` turned around.

    The smallest level whose p-value is at most ``delta``, up to ``TOLERANCE``, rounded upwards; 1 if there is none.
    """
    highest = 1 - TOLERANCE
    if p_value(mean, rows, highest) > delta:
        return 1.0
    return brentq(lambda level: p_value(mean, rows, level) - delta, mean, highest, xtol=TOLERANCE) + TOLERANCE


def least_rows(level: float, delta: float) -> int:
    """The fewest rows on which losses that are all 0 show, by ``upper_bound``, an expectation of at most ``level``."""
    rows = max(1, math.floor(math.log(delta) / math.log1p(-level)))  # Hoeffding's (1 - level)^n, the smaller of the two
    while upper_bound(0.0, rows, delta) > level:
        rows += 1
    return rows


def _divergence(one: float, other: float) -> float:
    """Kullback-Leibler divergence, in nats, of two Bernoulli variables."""
    parts = ((one, other), (1 - one, 1 - other))
    return sum(share * math.log(share / of) for share, of in parts if share > 0)
