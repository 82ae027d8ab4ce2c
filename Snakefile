# The workflow itself is in workflow/Snakefile, where other workflows and the catalogue look for it.
include: "workflow/Snakefile"


adapter.set_default_target(workflow, "all")
