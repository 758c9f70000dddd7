import numpy as np
import pytest

from agents.search.evolution import EvolutionStrategy
from agents.search.stages import EvolutionSettings

TARGET = np.linspace(-1.0, 1.0, 20)


def climb(strategy, generations):
    for _ in range(generations):
        strategy.tell([-np.sum((candidate - TARGET) ** 2) for candidate in strategy.ask()])
    return strategy


def test_it_finds_the_top_of_a_hill():
    strategy = climb(EvolutionStrategy(np.zeros(20), noise=0.05, learning_rate=0.02), 300)
    assert np.abs(strategy.center - TARGET).max() < 0.1


def test_only_the_order_of_fitness_matters():
    one, other = EvolutionStrategy(np.zeros(20)), EvolutionStrategy(np.zeros(20))
    for _ in range(5):
        values = np.array([-np.sum((candidate - TARGET) ** 2) for candidate in one.ask()])
        one.tell(values)
        other.tell(np.exp(values))
    assert np.array_equal(one.center, other.center)


def test_candidates_are_mirrored_and_the_same_until_told():
    strategy = EvolutionStrategy(np.ones(3), pairs=4)
    asked = strategy.ask()
    assert asked.shape == (8, 3)
    assert np.allclose(asked[0::2] + asked[1::2], 2.0)
    assert np.array_equal(asked, strategy.ask())


def test_a_restored_search_goes_on_exactly():
    straight = climb(EvolutionStrategy(np.zeros(20), seed=3), 10)
    half = EvolutionStrategy.restored(climb(EvolutionStrategy(np.zeros(20), seed=3), 5).state())
    assert np.array_equal(climb(half, 5).center, straight.center)


@pytest.mark.parametrize("fitness", [[1.0], [np.nan] * 24])
def test_bad_fitness_is_refused_before_anything_moves(fitness):
    strategy = EvolutionStrategy(np.zeros(2))
    with pytest.raises(ValueError, match="fitness must be 24 finite numbers"):
        strategy.tell(fitness)
    assert strategy.generation == 0 and not strategy.center.any()


@pytest.mark.parametrize(
    "change",
    [{"generations": -1}, {"noise": 0.0}, {"learning_rate": -0.1}, {"pairs": 0}, {"decay": 1.1}],
)
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}.* must be .* got"):
        EvolutionSettings(**({"generations": 5} | change))
