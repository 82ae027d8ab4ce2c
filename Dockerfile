# The workflow with everything that it needs on CPUs, in the versions of the lock.
#   docker build --tag pacbed .
#   docker run --rm --volume "$PWD/results:/pacbed/results" pacbed \
#     snakemake --profile profiles/local --configfile config/demo.yaml
# For Apptainer: apptainer build pacbed.sif docker-daemon://pacbed:latest
FROM python:3.12-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /pacbed
COPY requirements.lock .
RUN pip install --no-cache-dir --requirement requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --editable . --editable src/snakemake_logger_plugin_budget
CMD ["pacbed", "--help"]
