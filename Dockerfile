# The exporter, and nothing else: no shell, no libraries, no package manager.
#
#   docker build --tag darkport_exporter .
#   docker run --network host --pid host … darkport_exporter      README.md has the lines, with and without the kernel tier

FROM rust:1.95-bookworm AS dependencies
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libcap2-bin >/dev/null
WORKDIR /src
# Static: what needs nothing at run time can start from nothing. Names of hosts are found in /etc/hosts and by DNS, as
# /etc/resolv.conf has it; a container's runtime provides both. Users' names come from the password file, read directly.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# The dependencies, in a stage of their own that lasts until Cargo.toml or Cargo.lock change. Of the package itself only the
# manifest is there, without its benches, and what was built of the stand-in is thrown away.
COPY Cargo.toml Cargo.lock ./
RUN target=$(rustc --print host-tuple) \
 && sed -i '/^\[\[bench\]\]/,/^$/d' Cargo.toml \
 && mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
 && cargo build --release --locked --target "$target" \
 && cargo clean --release --locked --target "$target" --package darkport_exporter

FROM dependencies AS build
# What --version tells; a build outside a checkout knows neither by itself.
ARG REVISION=
ARG BRANCH=
COPY . .
RUN target=$(rustc --print host-tuple) \
 && sed -i '/^\[\[bench\]\]/,/^$/d' Cargo.toml \
 && DARKPORT_REVISION=$REVISION DARKPORT_BRANCH=$BRANCH cargo build --release --locked --target "$target" \
 && mkdir /image && cp "target/$target/release/darkport_exporter" LICENSE NOTICE /image/

# Permitted, and not in effect: a program file that has capabilities in effect cannot be run at all by a container that lacks
# one of them. The exporter puts into effect what there is, says what is missing, and gives up what it does not need.
RUN setcap cap_bpf,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin=p /image/darkport_exporter

FROM scratch
ARG REVISION=
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="darkport_exporter" \
      org.opencontainers.image.description="Prometheus exporter for the ports that should be silent" \
      org.opencontainers.image.source="https://github.com/darkport/darkport_exporter" \
      org.opencontainers.image.documentation="https://github.com/darkport/darkport_exporter/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image/ /
# By number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 10561
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/darkport_exporter", "healthcheck"]
ENTRYPOINT ["/darkport_exporter"]
