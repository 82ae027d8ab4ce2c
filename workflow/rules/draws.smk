# Which deformations are simulated. The table is for people: simulations get their parameters
# from the seed, the semi-angle and their number, so that more draws leave existing ones valid.


rule draws:
    output:
        report(
            f"{RESULTS}/draws.csv",
            caption="../report/draws.rst",
            category="Tables",
            labels={"table": "Draws"},
        ),
    log:
        f"{RESULTS}/logs/draws.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        seed=config["seed"],
        semiangles_mrad=config["microscope"]["semiangles_mrad"],
        deformation=DRAWN,
        draws=config["draws"],
    script:
        "../scripts/draws.py"
