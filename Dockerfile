# The node process. The agent is a host service: microVMs must outlive whoever started them,
# and a container could not let go of them (ARCHITECTURE.md).
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
WORKDIR /src
COPY pyproject.toml README.md ./
COPY hack/requirements.txt hack/requirements.txt
COPY vk_provider vk_provider
RUN python3 -m venv /opt/vk-provider \
 && /opt/vk-provider/bin/pip install --no-cache-dir --constraint hack/requirements.txt .

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/vk-provider /opt/vk-provider
ENTRYPOINT ["/opt/vk-provider/bin/vk-provider"]
CMD ["node"]
