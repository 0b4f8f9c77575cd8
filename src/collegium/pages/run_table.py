"""Results as tables for the terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from collegium.results.scores import Result, all_predictors, uneven


def predictor_table(
    title: str,
    scores: Mapping[str, Mapping[str, float]],
    cost: Mapping[str, Mapping[str, int]],
    images_per_class: Sequence[int],
) -> Table:
    """One run: predictor -> metric -> value, and predictor -> parameters and FLOPs, as rows.

    Where test classes are uneven, accuracies over all and by class and kappa take the place of the top-5 error.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("predictor", min_width=max(len(name) for name in scores))
    by_class = uneven(images_per_class)
    shares = (
        ("overall\nacc. %", "average\nacc. %", "kappa\nx 100") if by_class else ("top-1\nerror %", "top-5\nerror %")
    )
    for heading in (*shares, "NLL", "ECE\n%", "parameters", "MFLOPs"):
        table.add_column(heading, justify="right")
    for name, values in scores.items():
        known = cost.get(name)
        if by_class:
            cells = [1 - values["top1_error"], values["average_accuracy"], values["kappa"]]
        else:
            cells = [values["top1_error"], values["top5_error"]]
        table.add_row(
            name,
            *(f"{100 * value:.2f}" for value in cells),
            f"{values['nll']:.3f}",
            f"{100 * values['ece']:.1f}",
            f"{known['parameters']:,}" if known else "",
            f"{known['flops'] / 1e6:.1f}" if known else "",
        )
    return table


def result_table(result: Result) -> Table:
    """One complete run: the last epoch's scores of every predictor."""
    scores = {name: values["last"] for name, values in all_predictors(result).items()}
    title = f"{result['method']} on {result['data']}, {', '.join(result['peers'])}, last of {result['epochs']} epochs"
    return predictor_table(title, scores, result["cost"], result["test_images_per_class"])
