# One image for every govbus process; docker-compose.yml says which command each service runs.
# Not built here: no container engine ran where this was written. Checked instead: the same steps in a clean clone
# outside a container, and that every path copied exists (tests/test_docker_compose.py).
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/govbus
ENV PATH=/opt/govbus/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.txt ./
RUN pip install --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md ./
COPY schemas ./schemas
COPY streams ./streams
COPY connectors ./connectors
COPY consumers ./consumers
COPY govbus ./govbus
COPY bench ./bench
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/govbus --create-home govbus
COPY --from=build /opt/govbus /opt/govbus
ENV PATH=/opt/govbus/bin:$PATH PYTHONUNBUFFERED=1 GOVBUS_HOME=/var/lib/govbus
USER govbus
WORKDIR /var/lib/govbus
# A named volume mounted here takes the owner of this directory.
RUN mkdir province
VOLUME /var/lib/govbus
ENTRYPOINT ["govbus"]
CMD ["--help"]
