"""By which mean and std a network's images are normalised: the data's, or those that its trained weights have seen."""

from collegium.errors import UsageError
from collegium.networks.network import Network, Statistics

IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

HOW = ("own", "imagenet", "data")


def check_how(how: str) -> None:
    """Raises UsageError where ``how`` is no value of the option normalise."""
    if how not in HOW:
        raise UsageError(f"the network's option normalise={how[:60]} is unknown: give {', '.join(HOW)}")


def normalise(network: Network, how: str, given: Statistics | None) -> None:
    """Has a network normalise its images in another way than the data do.

    Args:
        network: it is changed in place, and its name says it.
        how: "own" for what the family's trained weights have seen, "imagenet" for ImageNet's mean and std, "data" for
            no change.
        given: by what the images that it will be given are normalised.

    Raises:
        UsageError: nothing is known of what its weights have seen, of the images that it will be given, or they have
            other channels.
    """
    check_how(how)
    if how == "data":
        return
    wanted = network.expected if how == "own" else IMAGENET
    name = network.name
    if wanted is None:
        raise UsageError(f"it is not known how the images of {name} are normalised: give normalise=imagenet or data")
    if given is None:
        raise UsageError(
            f"normalise={how} changes the normalisation of a data set, which {name} is not given here: leave it out, "
            "and normalise the images that you give the network"
        )
    network.renormalise(given, for_channels(wanted, network.in_channels, name))
    network.name = f"{name}:normalise={how}"


def for_channels(wanted: Statistics, channels: int, name: str) -> Statistics:
    """The same for images of so many channels; for grey ones the mean over channels.

    Raises:
        UsageError: there are as many statistics for another number of channels, which is not 1.
    """
    if len(wanted.mean) == channels:
        return wanted
    if channels != 1:
        raise UsageError(
            f"images of {channels} channels cannot be normalised as {name} expects those of {len(wanted.mean)}: leave "
            "normalise out"
        )
    mean, std = (sum(values) / len(values) for values in wanted)
    return Statistics((mean,), (std,))
