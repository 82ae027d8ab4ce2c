# Test examples read by fits of the scattering series, which begin with what a network predicts, and
# without one from a dictionary. Some of them per job: what is killed begins again there.
FIT = f"{FITS}/{{method}}_{{part}}.parquet"


rule fit:
    input:
        series=SERIES,
        examples=f"{DATASETS}/test.zarr.zip",
        predictions=network_of_fit,
    output:
        temp(expand(FIT, method=FIT_METHODS, allow_missing=True)),
    log:
        f"{RESULTS}/logs/fits/{{semiangle}}mrad/{{layers}}layers/{{part}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fits/{{semiangle}}mrad/{{layers}}layers/{{part}}.tsv"
    conda:
        "../envs/train-gpu.yaml"
    threads: 1
    resources:
        **expected(
            lambda wildcards, threads: costs.fits(
                STUDY,
                semiangle_mrad(wildcards),
                len(part_of_fit(wildcards)),
            )
        ),
        mem_mb=lambda wildcards, attempt: attempt * (5000 + set_mb("test")),
        runtime=minutes(120),
    params:
        rows=lambda wildcards: [
            part_of_fit(wildcards).start,
            part_of_fit(wildcards).stop,
        ],
        deformation=config["deformation"],
    script:
        "../scripts/fit.py"


rule calibration:
    # Whether errors are as large as what reads the examples says.
    input:
        networks=for_networks(f"{MODELS}/predictions_test.parquet", STATING),
        fits=fits_of_examples(),
    output:
        table("calibration", "Error bars"),
    log:
        f"{RESULTS}/logs/tables/calibration.log",
    localrule: True
    conda:
        "../envs/analyse.yaml"
    params:
        networks=[vars(network) for network in STATING],
        fitted=[vars(network) for network in FITTING],
        fit_methods=FIT_METHODS,
    script:
        "../scripts/calibration.py"


rule fits:
    # All of them, of a semi-angle and thickness.
    input:
        lambda wildcards: expand(FIT, part=range(FIT_PARTS), **wildcards),
    output:
        f"{FITS}/{{method}}_test.parquet",
    log:
        f"{RESULTS}/logs/fits/{{semiangle}}mrad/{{layers}}layers/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fits/{{semiangle}}mrad/{{layers}}layers/{{method}}.tsv"
    conda:
        "../envs/analyse.yaml"
    threads: 1
    resources:
        **expected(lambda wildcards, threads: costs.other("errors", FITTED / 1e6)),
        mem_mb=lambda wildcards, attempt: attempt * 1000,
        runtime=minutes(30),
    script:
        "../scripts/fits.py"
