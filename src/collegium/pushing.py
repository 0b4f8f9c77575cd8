"""A trained peer to the Hugging Face Hub, as a folder with a model card."""

import re
import tempfile
from pathlib import Path
from typing import Any

from collegium.cohort import AVERAGED, is_peer
from collegium.errors import CollegiumError, UsageError, nearest
from collegium.files import copy_bounded, inside
from collegium.hub import LARGEST, hub_api, reason_of
from collegium.model_card import CARD, card
from collegium.options import checked
from collegium.student import CONFIG, peer_files, peer_folder, read_config
from collegium.user_code import consents


@checked
@consents()
def push(run: str | Path, name: str, *, predictor: str | None = None, private: bool = False) -> str:
    """Uploads a trained peer to the Hugging Face Hub: weights, config.json, checksums and a model card (README.md).

    Others load it with ``collegium.load_peer("hf://OWNER/NAME")``, and a network of timm with
    ``timm.create_model("hf-hub:OWNER/NAME", pretrained=True)``. You are who `hf auth login` says.

    Args:
        run: a finished run, or a peer's folder.
        name: OWNER/NAME on the Hub, which is made if it does not exist.
        predictor: a peer, "peer1" or "peer0_ema"; by default the one that the method trains for use.
        private: make it visible to its owner alone, where it does not exist yet.

    Returns:
        Its address.

    Raises:
        UsageError: there is no such run or peer, or the Hub refuses.
    """
    if re.fullmatch(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", name) is None:
        raise UsageError(f"{name[:120]!r} names nothing on the Hub: write OWNER/NAME")
    folder = peer_folder(run)
    if predictor is not None:
        if not is_peer(predictor.removesuffix(AVERAGED)) or not (folder.parent / predictor / CONFIG).is_file():
            known = [each.name for each in folder.parent.iterdir() if (each / CONFIG).is_file()]
            raise UsageError(f"{run} has no peer {predictor!r}{nearest(predictor, known)}")
        folder = inside(folder.parent, predictor)
    config = read_config(folder)
    api = hub_api()
    with tempfile.TemporaryDirectory() as place:
        for file in peer_files(folder):  # of somebody else's run it may be a link to a file that is nobody's business
            copy_bounded(inside(folder, file.name), Path(place) / file.name, LARGEST[file.name])
        _add_card(folder, config, Path(place))
        try:
            address = str(api.create_repo(name, private=private, exist_ok=True))
            api.upload_folder(repo_id=name, folder_path=place, commit_message=f"{config['network']}, by Collegium")
        except Exception as error:  # of the Hub and of the network
            raise UsageError(f"{name} cannot be pushed: {reason_of(error)}; log in with `hf auth login`") from error
    return address


def _add_card(folder: Path, config: dict[str, Any], place: Path) -> None:
    """The peer's own card, which may have been edited, or one made of its run; none where it has neither."""
    from collegium.training.run_folder import RunFolder

    if (folder / CARD).is_file() and not (folder / CARD).is_symlink():
        copy_bounded(folder / CARD, place / CARD, LARGEST[CONFIG])
        return
    run = RunFolder(folder.parent.parent)
    try:
        result = run.result()
        if result is not None and folder.name in result["predictors"]:
            (place / CARD).write_text(card(folder.name, config, result, run.recipe().to_dict()))
    except CollegiumError:
        return
