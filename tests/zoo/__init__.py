"""Small models, every optimizer, a repeatable training, a slow twin and the contracts as assertions, for the tests."""

from zoo.batches import Batch
from zoo.cases import ZOO, Case
from zoo.crossing import LONG, crossed
from zoo.examples import examples
from zoo.optimizers import ALL, RECIPES, Recipe, recipes_for
from zoo.training import METHODS, RADII, Training, generators, pair, poison, said, seed_everything, set_generators
from zoo.twin import Scene, applied_ratio, twin_curvature, twin_ratio, twin_sensitivity

__all__ = [
    "ALL",
    "LONG",
    "METHODS",
    "RADII",
    "RECIPES",
    "ZOO",
    "Batch",
    "Case",
    "Recipe",
    "Scene",
    "Training",
    "applied_ratio",
    "crossed",
    "examples",
    "generators",
    "pair",
    "poison",
    "recipes_for",
    "said",
    "seed_everything",
    "set_generators",
    "twin_curvature",
    "twin_ratio",
    "twin_sensitivity",
]
