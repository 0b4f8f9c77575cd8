"""Averaged peers in the tables of studies and in the ranking."""

from pathlib import Path

import collegium
from collegium.study.cell import Cell
from collegium.training.recipe import Recipe
from made_up_runs import write_study


def test_averaged_peers_have_rows_of_their_own_and_are_one_network(tmp_path: Path) -> None:
    cells = []
    for method, error in (("independent", 0.3), ("dml", 0.2)):
        for seed in range(3):
            recipe = Recipe.from_dict({"method": method, "peers": "2xresnet8", "seed": seed, "ema": 0.9})
            peers = {"peer0": error, "peer1": error + 0.01 * seed}
            errors = peers | {"mean_peer": error + 0.005 * seed, "ensemble": error - 0.02}
            averaged = {f"{name}_ema": value - 0.05 for name, value in errors.items() if name != "mean_peer"}
            cells.append((Cell(f"{method} · 2xresnet8", recipe), errors | averaged))
    write_study(tmp_path / "study", cells)
    table = collegium.publish(tmp_path / "study")
    (row, *_) = (row for row in table.findings.rows if row.label.startswith("dml"))
    assert row.own == [] and {"peer0_ema", "peer1_ema", "ensemble_ema"} <= set(row.predictors)
    page = (tmp_path / "study" / "report.html").read_text()
    assert "peer0_ema" in page and "peer0_ema" in (tmp_path / "study" / "summary.csv").read_text()
    ranking, _ = collegium.rank(tmp_path / "study")
    kinds = {s.predictor: s.deployed for group in ranking.groups.values() for s in group if s.origin == "ours"}
    assert kinds["peer1_ema"] == "one network" and kinds["ensemble_ema"] == "several networks"
