from pathlib import Path

import pandas as pd
from _job import job

from pacbed.figures import bounds, errors
from pacbed.figures.style import save
from pacbed.precision.error_table import (
    NETWORK,
    NETWORK_FIT,
    of_test_set,
    of_variant,
    read_of_one_study,
)

params = snakemake.params
with job(snakemake.log[0]):
    means, table = read_of_one_study(*map(Path, snakemake.input))
    table = table[table["split"] == "test"]
    main = of_variant(table, params.outputs, params.intensity)
    if params.figure == "fig5":
        figure = errors.errors_against_thickness(of_test_set(main))
    elif params.figure == "fig7":
        networks = of_test_set(table[table["method"] == NETWORK])
        at_angle = networks["semiangle_mrad"] == params.semiangle_mrad
        figure = errors.errors_of_variants(networks[at_angle])
    elif params.figure == "classical":
        others = table[table["method"] != NETWORK]
        figure = errors.classical_against_network(pd.concat([main, others]))
    elif params.figure == "bound":
        figure = bounds.bound_against_thickness(means, main)
    elif params.figure == "efficiency":
        fits = table[table["method"] == NETWORK_FIT]
        figure = bounds.efficiency_map(pd.concat([main, fits]))
    else:
        figure = bounds.precision_against_probe_size(means, main)
    save(figure, *snakemake.output)
