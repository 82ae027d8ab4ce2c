# Maps of measured scans, by `pacbed map`: one job for each. It keeps what it has done next to the map,
# in a folder that is no output, so that Snakemake leaves it there: the next attempt continues.


rule map:
    input:
        lambda wildcards: MAP_JOBS[wildcards.scan].files,
    output:
        **MAP_FILES
        | dict(
            figure=report(
                MAP_FILES["figure"],
                caption="../report/map.rst",
                category="Maps",
                labels={"scan": "{scan}", "as": "figure"},
            ),
            page=report(
                MAP_FILES["page"],
                caption="../report/map.rst",
                category="Maps",
                labels={"scan": "{scan}", "as": "page"},
            ),
        ),
    log:
        f"{RESULTS}/logs/maps/{{scan}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/maps/{{scan}}.tsv"
    wildcard_constraints:
        scan="|".join(MAP_JOBS) or "-",
    conda:
        "../envs/map.yaml"
    threads: 8
    resources:
        **expected(cost_of_map),
        mem_mb=lambda wildcards, attempt: attempt * 6000,
        runtime=minutes(480),
    params:
        physics=PHYSICS_VERSION,
        words=lambda wildcards: list(MAP_JOBS[wildcards.scan].words),
        energy_keV=lambda wildcards: MAP_JOBS[wildcards.scan].energy_keV,
    script:
        "../scripts/map.py"


rule maps:
    # All of them, and nothing else.
    input:
        expand(list(MAP_FILES.values()), scan=MAP_JOBS),
