"""Compares Collegium's losses with those of the authors' code, or of the accepted reference, in float64.

python benchmarks/agreement/compare.py --clones FOLDER [--only METHOD] [--scale SHARE] [--out results/agreement]

The page that it writes names the repositories and how to clone them. What is not in the folder is not tried. With
``--only`` the rows of one method are shown, and nothing is written; nor with ``--scale 1e-6``, which makes all losses
of Collegium larger by this share, to see that the comparisons notice.
"""

import argparse
import datetime
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import by_logits
import by_maps
import by_networks
import torch
from agreement_page import NOT_TRIED, RESULTS, write_page
from clones import REPOSITORIES, Absent
from differences import Row, float64, write
from sides import Comparison

from collegium import methods
from collegium.method import Terms
from collegium.training.provenance import provenance

Check = tuple[str, str, Callable[[Comparison], None]]
"""A method, the repository, and what compares both."""

MEAN_KDCL = "shaoeric/Online-Knowledge-Distillation-via-Collaborative-Learning"
PCL = "shaoeric/Peer-Collaborative-Learning-for-Online-Knowledge-Distillation"

CHECKS: list[Check] = [
    ("ab", "bhheo/AB_distillation", by_maps.ab_authors),
    ("ab", "HobbitLong/RepDistiller", by_maps.ab),
    ("afd", "yechanp/self_kd", by_maps.afd),
    ("at", "szagoruyko/attention-transfer", by_maps.at_authors),
    ("at", "HobbitLong/RepDistiller", by_maps.at),
    ("cl_ilr", "DefangChen/OKDDip-AAAI2020", by_networks.cl_ilr),
    ("codistillation", "pfnet-research/sc20-online-codistillation", by_logits.codistillation),
    ("competitive", "XiaoleiDiao/Competitive-Distillation", by_logits.competitive),
    ("dkd", "megvii-research/mdistiller", by_logits.dkd),
    ("dkd", "sunshangquan/logit-standardization-KD", by_logits.dkd_standardised),
    ("dml", "YingZhangDUT/Deep-Mutual-Learning", by_logits.dml),
    ("dml", "parklize/rdml", by_logits.renyi),
    ("dml", "DefangChen/OKDDip-AAAI2020", by_logits.dml_okddip),
    ("dualnet", "ustc-vim/dualnet", by_maps.dualnet),
    ("ffl", "Jangho-Kim/FFL-pytorch", by_networks.ffl),
    ("ffsd", "SJLeo/FFSD", by_networks.ffsd),
    ("fitnets", "HobbitLong/RepDistiller", by_maps.fitnets),
    ("kd", "HobbitLong/RepDistiller", by_logits.kd_repdistiller),
    ("kd", "megvii-research/mdistiller", by_logits.kd_mdistiller),
    ("kd", "sunshangquan/logit-standardization-KD", by_logits.kd_standardised),
    ("kdcl", "wangz3066/OnlineDistillGCN", by_logits.kdcl_targets),
    ("kdcl", MEAN_KDCL, by_logits.kdcl_mean),
    ("l_mcl", "winycg/L-MCL", by_networks.l_mcl),
    ("mcl", "winycg/MCL", by_networks.mcl),
    ("okddip", "DefangChen/OKDDip-AAAI2020", by_networks.okddip),
    ("okdph", "tianlizhang/OKDPH", by_logits.okdph),
    ("one", "Lan1991Xu/ONE_NeurIPS2018", by_networks.one),
    ("pcl", PCL, by_networks.pcl),
    ("switokd", "hfutqian/SwitOKD", by_logits.switokd),
    ("switokd", "hfutqian/SwitOKD", by_logits.switokd_two_students),
    ("tf_kd_reg", "yuanli2333/Teacher-free-Knowledge-Distillation", by_logits.tf_kd),
    ("two_views", "dropreg/R-Drop", by_logits.two_views),
    ("two_views", "k2-fsa/icefall", by_logits.two_views_constant),
]


def compared(checks: Sequence[Check], clones: Path) -> Iterator[Row]:
    """The rows of each check, or one that says that the clone is missing."""
    for method, address, check in checks:
        (repository,) = (r for r in REPOSITORIES if r.address == address)
        comparison = Comparison(method, clones, repository)
        torch.manual_seed(0)
        try:
            with float64(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what code of years ago does
                check(comparison)
            yield from comparison.rows
        except Absent:
            yield Row(method, address, repository.commit[:12], "", "", "", "", NOT_TRIED)


def scale_losses(share: float) -> None:
    """Makes all that the methods give larger by this share, for good."""

    def scaled(forward: Callable[..., dict[str, Terms]]) -> Callable[..., dict[str, Terms]]:
        def larger(*arguments: Any) -> dict[str, Terms]:
            found = forward(*arguments)
            return {player: {name: (1 + share) * x for name, x in own.items()} for player, own in found.items()}

        return larger

    for name in methods.names():
        method: Any = methods.get(name)
        method.forward = scaled(method.forward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", type=Path, required=True)
    parser.add_argument("--only")
    parser.add_argument("--scale", type=float)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.scale is not None:
        scale_losses(options.scale)
    where: dict[str, Any] = {"date": datetime.date.today().isoformat(), "provenance": provenance(torch.device("cpu"))}
    begun, rows = time.perf_counter(), []
    for row in compared([check for check in CHECKS if options.only in (None, check[0])], options.clones):
        rows.append(row)
        print(" | ".join((row.method, row.compared, row.changed, row.value, row.gradient, row.verdict)), flush=True)
    if options.only is None and options.scale is None:
        options.out.mkdir(parents=True, exist_ok=True)
        write(rows, options.out / "agreement.csv")
        where["seconds"] = round(time.perf_counter() - begun)
        (options.out / "agreement.json").write_text(json.dumps(where, indent=2) + "\n")
        write_page(options.out)


if __name__ == "__main__":
    main()
