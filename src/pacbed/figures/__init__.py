"""Figures, from pattern stores and tables only."""

TITLES = {
    "cell": "The crystal",
    "fig1": "Patterns of the undeformed crystal",
    "fig2": "What strain and rotation do to a pattern",
    "fig3": "What tilt does to a pattern",
    "fig4": "Lowest and highest dose",
    "fig5": "Error against thickness",
    "fig6": "Errors against true values",
    "fig7": "Kinds of network for thin samples",
    "fig8": "With and without tilt among the outputs",
    "classical": "Networks, fits and the classical method",
    "bound": "The bound on precision",
    "efficiency": "How close to the bound",
    "tradeoff": "Precision against resolution",
}
"""What each figure of a study shows, in the order in which they are looked at."""
