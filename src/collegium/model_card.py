"""The model card of a trained peer: the README.md that the Hugging Face Hub shows of its folder."""

import re
from collections.abc import Mapping
from typing import Any

from collegium import data as datasets
from collegium.formatting import percent, plural, printable
from collegium.yaml_text import write_yaml

CARD = "README.md"
_TOLD = ("epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "seed")


def card(name: str, config: Mapping[str, Any], run: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """The card of a peer, with its front matter.

    Args:
        name: of the peer among the run's predictors.
        config: the content of its config.json.
        run: the content of the run's result.json.
        recipe: the run's; nothing of it that may be a path is told.
    """
    network, method, data = config["network"], run["method"].removeprefix("module:"), _data(run)
    by_timm = "pretrained_cfg" in config
    accuracy = 1 - run["predictors"][name]["last"]["top1_error"]
    metrics = [{"type": "accuracy", "name": "top-1 accuracy, last epoch", "value": round(accuracy, 6)}]
    dataset = {"name": data, "type": data if _published(data) else "custom"}
    task = {"type": "image-classification", "name": "Image Classification"}
    tags = ["image-classification", "knowledge-distillation", "online-distillation", "collegium", *["timm"] * by_timm]
    front = {
        "library_name": "timm" if by_timm else "collegium",
        "pipeline_tag": "image-classification",
        "tags": tags,
        **({"datasets": [data]} if _published(data) else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": network, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}],
    }
    others = [peer for k, peer in enumerate(run["peers"]) if f"peer{k}" != name.partition("_")[0]]
    beside = f", beside {' and '.join(others[:6])}{' and more' * (len(others) > 6)}" if others else ""
    scores = [f"| {key} | {percent(1 - found['last']['top1_error'])} |" for key, found in run["predictors"].items()]
    size = " x ".join(map(str, config.get("image_size", ())))
    lines = [
        f"# {printable(network)}",
        f"{printable(network)} for the {config['num_classes']:,} classes of {data}, trained with `{method}`{beside}, "
        f"by Collegium: networks that train together teach each other, and one of them is used. This is `{name}`.",
        "## Accuracy",
        f"Top-1 accuracy in percent on {run['test_images']:,} test images after the last epoch, of one run (seed "
        f"{run['seed']}), which cannot tell a gain from chance.",
        "\n".join(["| predictor | top-1 |", "|---|---:|", *scores]),
        "## Use",
        f"Images have {plural(config['in_channels'], 'channel')}"
        + (f" and {size} pixels" if size else "")
        + "; they are scaled to [0, 1] and normalised by `mean` and `std` of config.json.",
        _use(by_timm),
        "## Training",
        "\n".join(
            f"- {entry.replace('_', ' ')}: {printable(str(recipe[entry]))}" for entry in _TOLD if entry in recipe
        ),
    ]
    return f"---\n{write_yaml(front)}---\n\n" + "\n\n".join(lines) + "\n"


def _use(by_timm: bool) -> str:
    ours = 'import collegium\n\nnetwork = collegium.load_peer("FOLDER")  # or "hf://OWNER/NAME"'
    theirs = 'import timm\n\nnetwork = timm.create_model("local-dir:FOLDER", pretrained=True)  # or "hf-hub:OWNER/NAME"'
    blocks = [f"```python\n{code}\n```" for code in ([theirs, ours] if by_timm else [ours])]
    return "\n\nor with Collegium\n\n".join(blocks)


def _data(run: Mapping[str, Any]) -> str:
    """The name of the data; of a folder, whose path is nobody's business, the kind alone."""
    kind, colon, named = printable(str(run["data"])).partition(":")
    if kind == "huggingface" and re.fullmatch(r"[\w-]+/[\w.-]+", named):
        return named
    return f"data of the kind {kind}" if colon or "/" in kind else kind


def _published(data: str) -> bool:
    """Whether the name may be that of a data set which others know."""
    return "/" in data or data in datasets.names()
