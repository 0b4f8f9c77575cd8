"""Lightning Fabric, imported without torchmetrics.

Fabric imports it where it is installed, as it is with Lightning, to compare its version, which takes seconds.
"""

from collegium.loading import import_withheld

with import_withheld("torchmetrics"):
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.precision.amp import MixedPrecision
    from lightning_fabric.strategies.ddp import DDPStrategy

__all__ = ["DDPStrategy", "Fabric", "LightningEnvironment", "MixedPrecision"]
