"""Training: recipes, the loop, the run folder."""
