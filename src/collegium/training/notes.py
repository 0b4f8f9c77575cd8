"""What a run does by its recipe's options that a user may not expect, in sentences shown before training."""

from collegium.formatting import plural
from collegium.training.recipe import Recipe


def run_notes(recipe: Recipe, steps: int, images: int) -> list[str]:
    """One sentence for each option that changes more than its name says.

    Args:
        recipe: of the run.
        steps: of an epoch.
        images: of a batch that each process has.
    """
    notes = []
    if recipe.freeze is not None:
        named = any(option in recipe.peers for option in (":pretrained", ":weights="))
        trained = recipe.start_from is not None or named or recipe.peers.startswith("python:")
        random = "; they keep random weights, unless --start-from or a peer's weights=FILE names trained ones"
        notes.append(
            f"Parameters called {recipe.freeze} are not trained, and batch norms among them keep their statistics"
            f"{'' if trained else random}."
        )
    if recipe.micro_batches > 1:
        notes.append(
            f"Each step takes {recipe.micro_batches} micro-batches of {images // recipe.micro_batches} images in turn "
            "and descends their mean; batch norm and the method see each of them as a batch."
        )
    if recipe.ema is not None:
        notes.append(
            f"peer0_ema and so on have the moving average of the peers' weights over about {1 / (1 - recipe.ema):,.0f} "
            f"of {steps * recipe.epochs:,} steps; running statistics of batch norm are averaged like weights."
        )
    if recipe.patience is not None:
        every = "" if recipe.evaluate_every == 1 else f" (one every {recipe.evaluate_every} epochs)"
        notes.append(
            f"Training stops early after {plural(recipe.patience, 'evaluation')}{every} without a lower validation "
            f"error, with the weights of that epoch; the schedule is that of all {recipe.epochs} epochs."
        )
    return notes
