"""Which network of a study: its data and what it is trained to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkSpec:
    """One network of the study: where its data come from and what it is trained to do."""

    semiangle_mrad: float
    layers: int
    outputs: str
    intensity: str

    @property
    def wildcards(self) -> dict[str, str]:
        """What stands for it in names of files."""
        return {
            "semiangle": f"{self.semiangle_mrad:g}",
            "layers": str(self.layers),
            "outputs": self.outputs,
            "intensity": self.intensity,
        }
