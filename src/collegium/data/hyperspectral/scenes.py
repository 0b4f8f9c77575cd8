"""The scenes of the hyperspectral literature, from the files that their owners and their users hand on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from collegium.errors import DataError
from collegium.options import options_from

from ..download import data_root, fetch
from .mat_files import Array, pick, read_mat
from .scene_data import SceneData, SceneOptions, check_labels, from_scene
from .spectra import find

_EHU = "https://www.ehu.eus/ccwintco"


@dataclass(frozen=True)
class Scene:
    """What is published of a scene.

    Attributes:
        title: its name in the literature.
        cube: file and variable of the bands.
        truth: file and variable of the classes.
        shape: (H, W, bands)
        classes: label -> name, with spaces for underscores, and number of labelled pixels.
        colours: bands shown as red, green and blue, counted from 0, as public tools for these scenes have them.
        urls: file -> address; none where the owner hands out another format.
        source: where names, sizes and numbers are from.
        min_pixels: classes with fewer labelled pixels are left out, unless other things are said.
    """

    title: str
    cube: tuple[str, str]
    truth: tuple[str, str]
    shape: tuple[int, int, int]
    classes: dict[int, tuple[str, int]]
    colours: tuple[int, int, int]
    urls: dict[str, str]
    source: str = f"{_EHU}/index.php/Hyperspectral_Remote_Sensing_Scenes"
    min_pixels: int = 0


def _numbered(*classes: tuple[str, int]) -> dict[int, tuple[str, int]]:
    return dict(enumerate(classes, start=1))


SCENES = {
    "indian_pines": Scene(
        title="Indian Pines (AVIRIS), without the bands of water absorption",
        cube=("Indian_pines_corrected.mat", "indian_pines_corrected"),
        truth=("Indian_pines_gt.mat", "indian_pines_gt"),
        shape=(145, 145, 200),
        classes=_numbered(
            ("Alfalfa", 46),
            ("Corn-notill", 1428),
            ("Corn-mintill", 830),
            ("Corn", 237),
            ("Grass-pasture", 483),
            ("Grass-trees", 730),
            ("Grass-pasture-mowed", 28),
            ("Hay-windrowed", 478),
            ("Oats", 20),
            ("Soybean-notill", 972),
            ("Soybean-mintill", 2455),
            ("Soybean-clean", 593),
            ("Wheat", 205),
            ("Woods", 1265),
            ("Buildings-Grass-Trees-Drives", 386),
            ("Stone-Steel-Towers", 93),
        ),
        colours=(43, 21, 11),
        urls={
            "Indian_pines_corrected.mat": f"{_EHU}/uploads/6/67/Indian_pines_corrected.mat",
            "Indian_pines_gt.mat": f"{_EHU}/uploads/c/c4/Indian_pines_gt.mat",
        },
        min_pixels=100,
    ),
    "pavia_university": Scene(
        title="Pavia University (ROSIS)",
        cube=("PaviaU.mat", "paviaU"),
        truth=("PaviaU_gt.mat", "paviaU_gt"),
        shape=(610, 340, 103),
        classes=_numbered(
            ("Asphalt", 6631),
            ("Meadows", 18649),
            ("Gravel", 2099),
            ("Trees", 3064),
            ("Painted metal sheets", 1345),
            ("Bare Soil", 5029),
            ("Bitumen", 1330),
            ("Self-Blocking Bricks", 3682),
            ("Shadows", 947),
        ),
        colours=(55, 41, 12),
        urls={
            "PaviaU.mat": f"{_EHU}/uploads/e/ee/PaviaU.mat",
            "PaviaU_gt.mat": f"{_EHU}/uploads/5/50/PaviaU_gt.mat",
        },
    ),
    "salinas": Scene(
        title="Salinas (AVIRIS), without the bands of water absorption",
        cube=("Salinas_corrected.mat", "salinas_corrected"),
        truth=("Salinas_gt.mat", "salinas_gt"),
        shape=(512, 217, 204),
        classes=_numbered(
            ("Brocoli green weeds 1", 2009),
            ("Brocoli green weeds 2", 3726),
            ("Fallow", 1976),
            ("Fallow rough plow", 1394),
            ("Fallow smooth", 2678),
            ("Stubble", 3959),
            ("Celery", 3579),
            ("Grapes untrained", 11271),
            ("Soil vinyard develop", 6203),
            ("Corn senesced green weeds", 3278),
            ("Lettuce romaine 4wk", 1068),
            ("Lettuce romaine 5wk", 1927),
            ("Lettuce romaine 6wk", 916),
            ("Lettuce romaine 7wk", 1070),
            ("Vinyard untrained", 7268),
            ("Vinyard vertical trellis", 1807),
        ),
        colours=(43, 21, 11),
        urls={
            "Salinas_corrected.mat": f"{_EHU}/uploads/a/a3/Salinas_corrected.mat",
            "Salinas_gt.mat": f"{_EHU}/uploads/f/fa/Salinas_gt.mat",
        },
    ),
    "salinas_a": Scene(
        title="Salinas-A (AVIRIS), a part of Salinas",
        cube=("SalinasA_corrected.mat", "salinasA_corrected"),
        truth=("SalinasA_gt.mat", "salinasA_gt"),
        shape=(83, 86, 204),
        classes={
            1: ("Brocoli green weeds 1", 391),
            10: ("Corn senesced green weeds", 1343),
            11: ("Lettuce romaine 4wk", 616),
            12: ("Lettuce romaine 5wk", 1525),
            13: ("Lettuce romaine 6wk", 674),
            14: ("Lettuce romaine 7wk", 799),
        },
        colours=(43, 21, 11),
        urls={
            "SalinasA_corrected.mat": f"{_EHU}/uploads/1/1a/SalinasA_corrected.mat",
            "SalinasA_gt.mat": f"{_EHU}/uploads/a/aa/SalinasA_gt.mat",
        },
    ),
    "ksc": Scene(
        title="Kennedy Space Center (AVIRIS)",
        cube=("KSC.mat", "KSC"),
        truth=("KSC_gt.mat", "KSC_gt"),
        shape=(512, 614, 176),
        classes=_numbered(
            ("Scrub", 761),
            ("Willow swamp", 243),
            ("CP hammock", 256),
            ("Slash pine", 252),
            ("Oak/Broadleaf", 161),
            ("Hardwood", 229),
            ("Swamp", 105),
            ("Graminoid marsh", 431),
            ("Spartina marsh", 520),
            ("Cattail marsh", 404),
            ("Salt marsh", 419),
            ("Mud flats", 503),
            ("Water", 927),
        ),
        colours=(43, 21, 11),
        urls={"KSC.mat": f"{_EHU}/uploads/2/26/KSC.mat", "KSC_gt.mat": f"{_EHU}/uploads/a/a6/KSC_gt.mat"},
    ),
    "botswana": Scene(
        title="Botswana (Hyperion)",
        cube=("Botswana.mat", "Botswana"),
        truth=("Botswana_gt.mat", "Botswana_gt"),
        shape=(1476, 256, 145),
        classes=_numbered(
            ("Water", 270),
            ("Hippo grass", 101),
            ("Floodplain grasses 1", 251),
            ("Floodplain grasses 2", 215),
            ("Reeds", 269),
            ("Riparian", 269),
            ("Firescar", 259),
            ("Island interior", 203),
            ("Acacia woodlands", 314),
            ("Acacia shrublands", 248),
            ("Acacia grasslands", 305),
            ("Short mopane", 181),
            ("Mixed mopane", 268),
            ("Exposed soils", 95),
        ),
        colours=(75, 33, 15),
        urls={
            "Botswana.mat": f"{_EHU}/uploads/7/72/Botswana.mat",
            "Botswana_gt.mat": f"{_EHU}/uploads/5/58/Botswana_gt.mat",
        },
    ),
    "houston2013": Scene(
        title="Houston 2013 (CASI), training and test samples of the contest together",
        # The contest hands out a TIFF and lists of regions; these are the names under which they are handed on
        # as MATLAB files, with the variables that such files most often hold.
        cube=("Houston.mat", "Houston"),
        truth=("Houston_gt.mat", "Houston_gt"),
        shape=(349, 1905, 144),
        classes=_numbered(
            ("Healthy grass", 1251),
            ("Stressed grass", 1254),
            ("Synthetic grass", 697),
            ("Trees", 1244),
            ("Soil", 1242),
            ("Water", 325),
            ("Residential", 1268),
            ("Commercial", 1244),
            ("Road", 1252),
            ("Highway", 1227),
            ("Railway", 1235),
            ("Parking lot 1", 1233),
            ("Parking lot 2", 469),
            ("Tennis court", 428),
            ("Running track", 660),
        ),
        colours=(59, 40, 23),
        urls={},
        source="Debes et al., IEEE JSTARS 2014, https://doi.org/10.1109/JSTARS.2014.2305441 (2013 GRSS Data Fusion "
        "Contest); https://hyperspectral.ee.uh.edu/?page_id=459",
    ),
}


_NAMED = ("name", "class_names", "colour_bands")  # what the scene itself says


def _loader(name: str) -> Callable[..., SceneData]:
    published = SCENES[name]

    @options_from(from_scene, skip=_NAMED, min_pixels=published.min_pixels)
    def load(
        *,
        root: str | None = None,
        download: bool = True,
        **options: Unpack[SceneOptions],
    ) -> SceneData:
        cube, truth = _read(name, root, download)
        options.setdefault("min_pixels", published.min_pixels)
        return from_scene(
            cube,
            truth,
            name=name,
            class_names=tuple(class_name for class_name, _ in published.classes.values()),
            colour_bands=published.colours,
            **options,
        )

    height, width, count = published.shape
    load.__name__ = load.__qualname__ = name
    load.__doc__ = f"""{published.title}: {height} x {width} pixels, {count} bands, {len(published.classes)} classes.

    Source: {published.source}

    Args:
        root: where {published.cube[0]} and {published.truth[0]} lie, there or in its folder hyperspectral; the
            default is the environment's COLLEGIUM_DATA, else ~/.cache/collegium.
        download: download the files where they are not there and their owner offers them.
        **options: of :func:`~collegium.data.from_scene`.

    Raises:
        DataError: the files cannot be had, are damaged, or hold something else than is published.
        UsageError: a number is out of range, or a class has too few pixels for the split.
    """
    return load


indian_pines = _loader("indian_pines")
pavia_university = _loader("pavia_university")
salinas = _loader("salinas")
salinas_a = _loader("salinas_a")
ksc = _loader("ksc")
botswana = _loader("botswana")
houston2013 = _loader("houston2013")


@options_from(from_scene, skip=_NAMED)
def scene(
    path: str,
    *,
    root: str | None = None,
    cube_file: str | None = None,
    cube_variable: str | None = None,
    truth_file: str | None = None,
    truth_variable: str | None = None,
    **options: Unpack[SceneOptions],
) -> SceneData:
    """A scene of your own from MATLAB files: bands (H, W, bands) and classes (H, W), 0 where there is none.

    Args:
        path: a .mat file, or a folder of them; where there is none, it is looked for under `root`, in the folder
            hyperspectral and then in `root` itself.
        root: where data lie; the default is the environment's COLLEGIUM_DATA, else ~/.cache/collegium.
        cube_file: the file in the folder that holds the bands; by default all are searched.
        cube_variable: its variable; by default the only array with three axes.
        truth_file: the file in the folder that holds the classes; by default all are searched.
        truth_variable: its variable; by default the only array with two axes.
        **options: of :func:`~collegium.data.from_scene`.

    Raises:
        DataError: there are no such files, they are damaged, or it is not clear which arrays are meant.
        UsageError: a number is out of range, or a class has too few pixels for the split.
    """
    place = find(path, root)
    return from_scene(
        _array(place, cube_file, cube_variable, axes=3),
        _array(place, truth_file, truth_variable, axes=2),
        name=place.stem if place.is_file() else place.name,
        **options,
    )


def _array(place: Path, file: str | None, variable: str | None, *, axes: int) -> Array:
    """The array that is meant in a file, or in one or all files of a folder."""
    files = [place] if place.is_file() else sorted(place.glob("*.mat")) if file is None else [place / file]
    if not files:
        raise DataError(f"{place} holds no .mat file: give a folder that does, or the file itself")
    arrays = {name: array for path in files for name, array in read_mat(path).items()}
    return pick(arrays, axes, variable, str(place if file is None else files[0]))


def _read(name: str, root: str | None, download: bool) -> tuple[Array, Array]:
    """Bands and classes of a published scene, checked against what is published."""
    published = SCENES[name]
    cube_path, truth_path = (_file(name, file, root, download) for file, _ in (published.cube, published.truth))
    cube, truth = _named(cube_path, 3, published.cube[1]), _named(truth_path, 2, published.truth[1])
    if cube.shape != published.shape or truth.shape != published.shape[:2]:
        raise DataError(
            f"{cube_path} and {truth_path} hold arrays of shape {cube.shape} and {truth.shape}, {name} is published "
            f"as {published.shape} and {published.shape[:2]}: put the published files there, or load yours as "
            "scene:PATH"
        )
    check_labels(str(truth_path), truth, unlabelled=True)
    values, counts = np.unique(truth[truth > 0].astype(np.int64), return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    expected = {label: count for label, (_, count) in published.classes.items()}
    if found != expected:
        label = min(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
        raise DataError(
            f"{truth_path} has {found.get(label, 0)} pixels of class {label}, {name} is published with "
            f"{expected.get(label, 0)}: put the published file there, or load yours as scene:PATH"
        )
    return cube, truth


def _named(path: Path, axes: int, variable: str) -> Array:
    """The published variable of a file, or where copies call it otherwise, its only array with so many axes."""
    arrays = read_mat(path)
    return pick(arrays, axes, variable if variable in arrays else None, str(path))


def _file(name: str, file: str, root: str | None, download: bool) -> Path:
    base = data_root(root)
    for path in (base / "hyperspectral" / file, base / file):
        if path.is_file():
            return path
    published = SCENES[name]
    if file not in published.urls:
        raise DataError(
            f"{file} of {name} is not under {base}: get the scene from {published.source}, and put it there as "
            "that file"
        )
    if not download:
        raise DataError(
            f"{file} of {name} is not under {base}: allow the download, or give as root (or in the environment as "
            "COLLEGIUM_DATA) the folder that holds it"
        )
    target = base / "hyperspectral" / file
    fetch(published.urls[file], target, md5=None)
    return target
