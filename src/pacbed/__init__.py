"""PACBED patterns of deformed 2D materials, and how well a network reads them.

Packages, each of which imports only those named before it:

``storage``, ``specimen``, ``engines``, ``scattering``, ``patterns``, ``examples``, ``learning``,
``reading``, ``precision``, ``study``, ``figures``, ``runs``, ``cli``.
"""

__version__ = "1.0.0"
