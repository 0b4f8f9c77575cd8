"""Trains each of many architectures for two steps beside a ResNet with FFL, and writes docs/architectures.md.

    python benchmarks/architectures.py [NAME ...]

A network passes when all losses are finite, and a gradient reaches nine tenths of its parameter tensors (all of most
networks'; the rest are biases before a norm, or blocks that stochastic depth skipped). Names on the command line are
tried and printed without writing the table.
"""

import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from collegium.data import from_arrays
from collegium.errors import CollegiumError
from collegium.method import Progress
from collegium.networks import Network
from collegium.networks.adapt import StagedNetwork, TappedNetwork
from collegium.networks.timm_models import IntermediatesNetwork
from collegium.training.experiment import build
from collegium.training.recipe import Recipe

TARGET = Path(__file__).parents[1] / "docs" / "architectures.md"
TIMM_API = "timm's API"
SIDE, CLASSES, BATCH = 64, 10, 4

TIMM = """
    resnet18 resnet50 resnet26d resnext50_32x4d seresnet50 ecaresnet26t res2net50_26w_4s resnest14d convnext_atto
    convnextv2_atto densenet121 dla34 dpn48b efficientnet_b0 tf_efficientnetv2_b0 mobilenetv2_050 mobilenetv3_small_050
    mobilenetv4_conv_small mnasnet_small lcnet_050 tinynet_e ghostnet_050 hardcorenas_a rexnet_100 regnetx_002
    regnety_004 repvgg_a0 vgg11_bn inception_v3 inception_next_atto nfnet_l0 cspresnet50 hrnet_w18_small selecsls42
    starnet_s1 fastvit_t8 repghostnet_050 edgenext_xx_small efficientformer_l1 mobilevit_xxs mobileone_s0
    vit_tiny_patch16_224 vit_tiny_patch16_224:img_size=64 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224
    eva02_tiny_patch14_224 vit_small_patch16_dinov3 cait_xxs24_224 xcit_nano_12_p16_224 pit_ti_224 levit_128s
    visformer_tiny twins_pcpvt_small pvt_v2_b0 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 davit_tiny
    focalnet_tiny_srf hiera_tiny_224 mvitv2_tiny maxvit_rmlp_pico_rw_256 coatnet_nano_rw_224 coat_tiny
    crossvit_tiny_240 poolformerv2_s12 convformer_s18 convmixer_768_32 mixer_s32_224 resmlp_12_224 gmlp_s16_224
    sequencer2d_s tnt_s_legacy_patch16_224 nest_tiny nextvit_small tresnet_m volo_d1_224 beit_base_patch16_224
    botnet26t_256 convit_tiny cpubone_nano csatv2 cspnext_tiny efficientformerv2_s0 efficientvim_m1 efficientvit_b0
    efficientvit_m0 fasternet_t0 gcvit_xxtiny hgnetv2_b0 hieradet_small iformer_s inception_resnet_v2 inception_v4
    lcnetv2_small lowformer_b0 mambaout_femto naflexvit_base_patch16_gap nasnetalarge pnasnet5large rdnet_tiny
    repvit_m0_9 resnetv2_18 legacy_seresnet18 shvit_s1 skresnet18 swiftformer_xs swinv2_cr_tiny_224 tiny_vit_5m_224
    vit_base_resnet26d_224 vit_relpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224
    ese_vovnet19b_slim_dw legacy_xception xception41 qwen3_vit_88m mobilenetv5_base gemma4_vit_167m
    gemma4_vit_167m_enc mobilenetv5_300m_enc
""".split()
TORCHVISION = """
    alexnet vgg11_bn resnet18 resnet34 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 squeezenet1_1 googlenet
    inception_v3 mobilenet_v2 mobilenet_v3_small shufflenet_v2_x0_5 mnasnet0_5 efficientnet_b0 efficientnet_v2_s
    regnet_y_400mf convnext_tiny swin_t swin_v2_t vit_b_16 maxvit_t
""".split()
NAMES = [f"timm/{name}" for name in TIMM] + [f"torchvision/{name}" for name in TORCHVISION]


@dataclass
class Row:
    """One architecture's line of the table."""

    name: str
    family: str = ""
    parameters: int = 0
    image: str = ""
    maps: str = ""
    read: str = ""
    cuts: str = ""
    seconds: float = 0.0
    problem: str = ""


def family(network: Network) -> str:
    return type(network.plain()).__module__.rpartition(".")[2].replace("_", " ")


def how_read(network: Network) -> str:
    kinds = {StagedNetwork: "stages", IntermediatesNetwork: TIMM_API, TappedNetwork: "hooks"}
    return kinds[type(network)]


def try_out(name: str) -> Row:
    """Two steps of FFL beside a ResNet-20."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2 * BATCH, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    pair = (images, torch.arange(2 * BATCH) % CLASSES)
    data = from_arrays(pair, pair, class_names=tuple(map(str, range(CLASSES))))
    row, begun = Row(name), time.perf_counter()
    try:
        experiment = build(Recipe(method={"name": "ffl"}, peers=f"resnet20,{name}"), data=data)
        learner = experiment.learner.train()
        network = learner.cohort.peer(1)
        optimizer = torch.optim.SGD(
            [p for g in learner.method.players(learner.cohort)["peers"] for p in g["params"]], 0.1
        )
        batches = data.training_batches(batch_size=BATCH, seed=0, device=torch.device("cpu"))
        for step, (x, y) in enumerate(batches.epoch(0)):
            progress = Progress(*torch.tensor([0.0, 1.0, step / 2]))
            terms = learner(x, y, progress)[0]["peers"]
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad()
            loss.backward()
            if not loss.isfinite():
                raise ArithmeticError(f"the loss became {loss.item()}")
            optimizer.step()
        # Some residual branches start with a factor of zero, so that the second step is the first to reach all of them.
        lost = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        if len(lost) > 0.1 * len(list(network.parameters())):
            raise ArithmeticError(f"no gradient reaches {len(lost)} parameter tensors: {', '.join(lost[:3])}, ...")
    except (CollegiumError, RuntimeError, ArithmeticError) as error:
        row.problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return row
    row.family = family(network)
    row.parameters = sum(p.numel() for p in network.parameters())
    row.image = "×".join(map(str, network.image_size or (SIDE, SIDE)))
    row.maps = ", ".join(f"{d}×{h}×{w}" for d, h, w in experiment.spec.feature_shapes[1])
    row.read = how_read(network)
    cuts = network.stage_names[:-1] if row.read == "stages" else ()
    row.cuts = f"{cuts[0]} … {cuts[-1]}" if cuts else "no"
    row.seconds = time.perf_counter() - begun
    return row


def table(rows: list[Row]) -> str:
    passed = sorted(
        (row for row in rows if not row.problem), key=lambda row: (row.name.partition("/")[0], row.family, row.name)
    )
    failed = [row for row in rows if row.problem]
    reads = Counter(row.read for row in passed)
    families = len({(row.name.partition("/")[0], row.family) for row in passed})
    lines = [
        "# Architectures",
        "",
        "Written by `python benchmarks/architectures.py`, which trains each network two steps with `ffl` beside a "
        f"`resnet20`, on {BATCH} random images of {SIDE}×{SIDE} pixels a step, and looks at losses and gradients.",
        "",
        f"{len(passed)} of {len(rows)} architectures from {families} families passed. {reads['stages']} run as stages "
        "one after another (proved on each by comparing logits and gradients), so like peers can share any part as "
        f"a trunk. The maps of {reads[TIMM_API]} are read by timm's `forward_intermediates`, those of "
        f"{reads['hooks']} by hooks; they stay whole.",
        "",
        "*Sees*: the size that images are resized to where the network takes no other. *Maps*: channels × height × "
        "width after every stage.",
        "",
        "| network | family | parameters | sees | maps | read | trunk may end after |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{r.name}` | {r.family} | {r.parameters / 1e6:.2f} M | {r.image} | {r.maps} | {r.read} | {r.cuts} |"
        for r in passed
    ]
    lines += ["", "## What fails", ""]
    lines += [f"- `{row.name}`: {row.problem}" for row in failed] or ["Nothing of what was tried."]
    return "\n".join(lines) + "\n"


def main() -> None:
    warnings.simplefilter("ignore")
    names = sys.argv[1:] or NAMES
    rows = []
    for name in names:
        row = try_out(name)
        rows.append(row)
        print(f"{name}: {row.problem or f'{row.read}, {row.maps}, {row.seconds:.1f} s'}", flush=True)
    if not sys.argv[1:]:
        TARGET.write_text(table(rows))
        print(TARGET)


if __name__ == "__main__":
    main()
