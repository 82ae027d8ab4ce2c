"""PACBED patterns of deformed 2D materials, and how well a network reads them.

The modules follow the physics: :mod:`~pacbed.crystal` and :mod:`~pacbed.deformation` say what is
illuminated, :mod:`~pacbed.microscope` how, :mod:`~pacbed.engines` computes the patterns,
:mod:`~pacbed.patterns` keeps them; :mod:`~pacbed.augment` and :mod:`~pacbed.dataset` make examples
of them, :mod:`~pacbed.network` and :mod:`~pacbed.training` learn, :mod:`~pacbed.metrics` and
:mod:`~pacbed.figures` say how well.
"""

__version__ = "0.1.0"
