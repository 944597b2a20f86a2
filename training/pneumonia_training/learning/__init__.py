"""From films to a trained network: recipes, the module, fitting, folds and records of runs."""
