"""Non-negative least squares of relative errors, unbiased for times that scatter."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

_ROUNDS, _TOLERANCE = 50, 1e-9
_ENOUGH = 4000  # batches to choose by


def fit_relative(
    seconds: np.ndarray, terms: np.ndarray | Callable[[int], np.ndarray], choices: Iterable[int] = (0,)
) -> tuple[int, np.ndarray]:
    """Coefficients >= 0 of terms that add up to `seconds`, each batch weighted by 1/predicted^2.

    Weights of 1/measured^2 would count a batch that happened to be fast for more than one that was slow, and yield a
    law that is too fast by the squared scatter. So the weights follow the prediction, in rounds that start from the
    measurements. The ratios of measured over predicted time then have the mean 1.

    Args:
        seconds: f8[n], measured.
        terms: design matrix f8[n, m], or what yields that of a choice.
        choices: values to choose the best of.

    Returns:
        The choice with the least squared error, and its coefficients, f8[m].
    """
    from scipy.optimize import nnls

    choices = tuple(choices)

    def design(choice: int) -> np.ndarray:
        return terms if isinstance(terms, np.ndarray) else terms(choice)

    if len(choices) > 1 and len(seconds) > _ENOUGH:
        some = np.sort(np.random.default_rng(0).choice(len(seconds), _ENOUGH, replace=False))
        choices = (fit_relative(seconds[some], lambda choice: design(choice)[some], choices)[0],)
    best, coefficients, predicted = choices[0], np.zeros(0), seconds
    for _ in range(_ROUNDS):
        least = np.inf
        for choice in choices:
            weighted = design(choice) / predicted[:, None]
            scale = np.linalg.norm(weighted, axis=0)
            scale[scale == 0] = 1.0  # the coefficient of a term that no batch has becomes 0
            solution, residual = nnls(weighted / scale, seconds / predicted)
            if residual < least:
                least, best, coefficients = residual, choice, solution / scale
        before, predicted = predicted, np.maximum(design(best) @ coefficients, 1e-6 * seconds)
        if np.max(np.abs(predicted / before - 1)) < _TOLERANCE:
            break
    return best, coefficients
