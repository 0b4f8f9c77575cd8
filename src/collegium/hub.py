"""Peers of the Hugging Face Hub, downloaded as what they are: data of somebody else."""

import re
from pathlib import Path
from typing import Any

from collegium.errors import DataError, UsageError
from collegium.extras import how_to_install
from collegium.files import checksum_file, inside, storing
from collegium.schemas import LARGEST_JSON

LARGEST_WEIGHTS = 4 * 2**30  # bytes: a thousand million weights of fp32
_PEER = {"config.json": LARGEST_JSON, "model.safetensors": LARGEST_WEIGHTS}
LARGEST = _PEER | {checksum_file(Path(file)).name: 4096 for file in _PEER}
"""Each file of a peer, and the most bytes that it may have."""
_NAME = re.compile(r"hf:/{1,2}([\w-][\w.-]{0,95}/[\w-][\w.-]{0,95})(?:@((?!.*\.\.)[\w./-]{1,100}))?")


def located(path: str | Path) -> Path:
    """A path as it is, and for hf://OWNER/NAME or hf://OWNER/NAME@REVISION the folder that it is downloaded to.

    What is downloaded is what a peer is made of and nothing else, and no more of it than is allowed: config.json,
    model.safetensors and their checksums. A revision that is there already is not downloaded again.

    Raises:
        UsageError: there is no such peer on the Hub, or it cannot be reached.
        DataError: its files are larger than allowed, or not as announced.
    """
    if not on_hub(path):
        return Path(path).expanduser()
    found = _NAME.fullmatch(str(path))
    if found is None:
        raise UsageError(
            f"{str(path)[:120]!r} names nothing on the Hub: write hf://OWNER/NAME, or hf://OWNER/NAME@REVISION"
        )
    from collegium.data.download import data_root

    name, revision = found[1], found[2]
    api = hub_api()
    try:
        info = api.model_info(name, revision=revision, files_metadata=True)
    except Exception as error:  # of the Hub and of the network
        raise UsageError(f"hf://{name} cannot be read: {reason_of(error)}") from error
    folder = data_root(None) / ".collegium" / "hub"
    if re.fullmatch(r"[0-9a-f]{7,64}", str(info.sha)) is None:
        raise DataError(f"hf://{name} has no revision that can be named")
    folder = inside(folder, name.replace("/", "--"), str(info.sha))
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    for file in _PEER:
        if file not in sizes:
            raise UsageError(f"hf://{name} is not a peer: it has no {file}")
    for file, limit in LARGEST.items():
        if file in sizes:
            _download(api, name, str(info.sha), folder, file, sizes[file], limit)
    return folder


def on_hub(path: str | Path) -> bool:
    """Whether a path is a name of the Hub; a Path has one of the two slashes."""
    return str(path).startswith("hf:/")


def _download(api: Any, name: str, revision: str, folder: Path, file: str, size: object, limit: int) -> None:
    if not isinstance(size, int) or not 0 <= size <= limit:
        raise DataError(f"{file} of hf://{name} has {str(size)[:40]} bytes; it may have {limit:,}")
    place = inside(folder, file)
    if place.is_file() and place.stat().st_size == size:
        return
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        api.hf_hub_download(name, file, revision=revision, local_dir=folder)
    except Exception as error:  # of the Hub, of the network and of the disk
        raise UsageError(f"{file} of hf://{name} cannot be downloaded: {reason_of(error)}") from error
    if not inside(folder, file).is_file() or place.stat().st_size != size:
        place.unlink(missing_ok=True)
        raise DataError(f"{file} of hf://{name} is not as long as the Hub says: try again")


def hub_api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UsageError(f"the Hub needs the package huggingface_hub: {how_to_install('huggingface')}") from error
    return HfApi(library_name="collegium")


def reason_of(error: Exception) -> str:
    """The first line of what the Hub says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
