# Plumbline in three images: serve (no torch, transformers or Evidently), monitor, and export (also retrains).
#
#   docker build --target serve --tag plumbline-serve .
#   docker build --target serve --tag plumbline-serve:cuda \
#     --build-arg BASE_IMAGE=docker.io/nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04 \
#     --build-arg ONNXRUNTIME=onnxruntime-gpu .
#
# The base brings Python 3.11 or later, or Debian's apt to install it with.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
RUN command -v python3 > /dev/null \
    || { apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*; }

# What all three run in: as a number, so that Kubernetes can see that it is not root; group 0 owns what is written, so
# that any other number works as well. No package installer, nothing setuid.
FROM base AS runtime
RUN python3 -c "import shutil, sys, sysconfig; from pathlib import Path; \
        places = {Path(sysconfig.get_path(which)) for which in ('purelib', 'stdlib')} | {Path('/usr/lib/python3/dist-packages')}; \
        [shutil.rmtree(found) for place in places for name in ('pip', 'pip-*', 'setuptools*', 'wheel*', 'ensurepip') \
            for found in place.glob(name) if found.is_dir()]" \
    && rm -rf /usr/share/python-wheels /usr/local/bin/pip* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && mkdir -m 2775 /models /log /state && chown 10001:0 /models /log /state
ENV PATH=/opt/plumbline/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    PLUMBLINE_REPO=/models
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
ENTRYPOINT ["plumbline"]

# The code, compiled once, since the file system of a container is read-only. Nothing below installs for its sake.
FROM base AS code
COPY plumbline /code/plumbline
COPY service /code/service
COPY export /code/export
COPY monitoring /code/monitoring
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /code

# Dependencies by pyproject.toml, pinned by constraints.txt; the runtime of ONNX is chosen here, since only one of the two
# distributions may be installed. EXTRAS: for example "upload tracing".
FROM base AS serve-dependencies
ARG ONNXRUNTIME=onnxruntime
ARG EXTRAS=
COPY pyproject.toml constraints.txt /build/
RUN python3 -m venv /build/pip && python3 -m venv --without-pip /opt/plumbline \
    && echo /opt/plumbline/code > "$(/opt/plumbline/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/plumbline.pth" \
    && printf '#!/opt/plumbline/bin/python\nfrom plumbline.cli import main\n\nmain()\n' > /opt/plumbline/bin/plumbline \
    && chmod 0755 /opt/plumbline/bin/plumbline \
    && printf '%s\n' \
        'import sys, tomllib' \
        'project = tomllib.load(open("/build/pyproject.toml", "rb"))["project"]' \
        'extras = (one for extra in sys.argv[1:] for one in project["optional-dependencies"][extra])' \
        'print(*(one for one in project["dependencies"] if not one.startswith("onnxruntime")), *extras, sep="\n")' \
        > /build/requirements.py \
    && { echo "$ONNXRUNTIME"; python3 /build/requirements.py $EXTRAS; } > /build/serve.txt \
    && /build/pip/bin/pip --python /opt/plumbline/bin/python install --constraint /build/constraints.txt --requirement /build/serve.txt \
    && cd /opt/plumbline/lib/python3*/site-packages \
    && find numpy pyarrow -type d '(' -name tests -o -name include ')' -prune -exec rm -r {} +

FROM runtime AS serve
LABEL org.opencontainers.image.title="plumbline-serve" \
    org.opencontainers.image.description="Serves exported text classifiers over HTTP and logs what they are asked." \
    org.opencontainers.image.version="0.1.0"
ENV PLUMBLINE_HOST=0.0.0.0 PLUMBLINE_PORT=8000
COPY --from=serve-dependencies /opt/plumbline /opt/plumbline
COPY --from=code /code/plumbline /opt/plumbline/code/plumbline
COPY --from=code /code/service /opt/plumbline/code/service
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PLUMBLINE_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["serve"]

FROM serve-dependencies AS monitor-dependencies
RUN python3 /build/requirements.py monitor > /build/monitor.txt \
    && /build/pip/bin/pip --python /opt/plumbline/bin/python install --constraint /build/constraints.txt --requirement /build/monitor.txt

FROM runtime AS monitor
LABEL org.opencontainers.image.title="plumbline-monitor" \
    org.opencontainers.image.description="Watches the inference log for drift, alerts, and asks for retrains." \
    org.opencontainers.image.version="0.1.0"
ENV PLUMBLINE_MONITOR_HOST=0.0.0.0 PLUMBLINE_MONITOR_PORT=8001 PLUMBLINE_MONITOR_STATE=/state PLUMBLINE_LOG=/log
COPY --from=monitor-dependencies /opt/plumbline /opt/plumbline
COPY --from=code /code/plumbline /opt/plumbline/code/plumbline
COPY --from=code /code/service /opt/plumbline/code/service
COPY --from=code /code/monitoring /opt/plumbline/code/monitoring
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PLUMBLINE_MONITOR_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["monitor"]

# TORCH_INDEX: the address of PyTorch's index of wheels for the CPU, which its install page shows. Without it pip takes
# what its own index offers first, on Linux usually the far larger build for CUDA.
FROM serve-dependencies AS export-dependencies
ARG TORCH_INDEX=
RUN /build/pip/bin/pip --python /opt/plumbline/bin/python install --constraint /build/constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && python3 /build/requirements.py export > /build/export.txt \
    && /build/pip/bin/pip --python /opt/plumbline/bin/python install --constraint /build/constraints.txt --requirement /build/export.txt

FROM runtime AS export
LABEL org.opencontainers.image.title="plumbline-export" \
    org.opencontainers.image.description="Fine-tunes, exports and retrains; what it publishes is served by plumbline-serve." \
    org.opencontainers.image.version="0.1.0"
COPY --from=export-dependencies /opt/plumbline /opt/plumbline
COPY --from=code /code/plumbline /opt/plumbline/code/plumbline
COPY --from=code /code/service /opt/plumbline/code/service
COPY --from=code /code/export /opt/plumbline/code/export
CMD ["--help"]
