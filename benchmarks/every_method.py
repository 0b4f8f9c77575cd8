"""Every method under one recipe, several seeds each, on 50 CIFAR-100 images of each class.

python benchmarks/every_method.py run      trains; goes on where it was interrupted
"""

import argparse
import os
from pathlib import Path
from typing import Any

from grid import train_all

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "every_method.yaml"

# name -> what differs from the recipe.
STUDY: dict[str, dict[str, Any]] = {
    "independent": {},
    "teacher": {"peers": "resnet32"},  # early, for others wait for it
    "dml": {"method": {"name": "dml"}},
    "ffl": {"method": {"name": "ffl"}, "share_until": "stage2"},
    "one": {"method": {"name": "one"}, "share_until": "stage2"},
    "cl_ilr": {"method": {"name": "cl_ilr"}, "share_until": "stage2"},
    "kdcl": {"method": {"name": "kdcl"}},
    "mcl": {"method": {"name": "mcl"}},
    "okdph": {"method": {"name": "okdph", "interval": 78}},
    "okddip": {"method": {"name": "okddip"}, "peers": "3xresnet14", "share_until": "stage2"},
    "pcl": {"method": {"name": "pcl"}, "peers": "3xresnet14", "share_until": "stage2"},
    "codistillation": {"method": {"name": "codistillation"}},
    "mfef": {"method": {"name": "mfef"}},
    "ffcl": {"method": {"name": "ffcl"}},
    "dualnet": {"method": {"name": "dualnet"}},
    "switokd": {"method": {"name": "switokd"}},
    "tf_kd_reg": {"method": {"name": "tf_kd_reg"}},
    "label_smoothing": {"label_smoothing": 0.1},
    "kd": {"method": {"name": "kd"}, "teacher": "teacher"},
    "at": {"method": {"name": "at"}, "teacher": "teacher"},
    "fitnets": {"method": {"name": "fitnets"}, "teacher": "teacher"},
    "ab": {"method": {"name": "ab"}, "teacher": "teacher"},
    "ffsd": {"method": {"name": "ffsd"}, "peers": "3xresnet14"},
    "independent_3": {"peers": "3xresnet14"},
    "afd": {"method": {"name": "afd"}},
    "afd_l1": {"method": {"name": "afd", "adversarial": "l1"}},
    "afd_cyclic": {"method": {"name": "afd", "scheme": "cyclic"}, "peers": "3xresnet14"},
}


def jobs(runs: Path, rows: list[str], seeds: list[int]) -> list[tuple[Path, dict[str, Any]]]:
    """Every row with every seed; a teacher is the run of the same seed."""
    found = []
    for seed in seeds:
        for row in rows:
            keywords = {"config": RECIPE, "seed": seed, **STUDY[row]}
            if "teacher" in keywords:
                keywords["teacher"] = str(runs / f"{keywords['teacher']}-{seed}")
            found.append((runs / f"{row}-{seed}", keywords))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--runs", type=Path, default=Path("runs/every_method"))
    parser.add_argument("--rows", default=",".join(STUDY))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    rows, seeds = options.rows.split(","), [int(seed) for seed in options.seeds.split(",")]
    train_all(jobs(options.runs.resolve(), rows, seeds), options.workers)


if __name__ == "__main__":
    main()
