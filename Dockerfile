FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin daybook \
 && strip target/release/daybook \
 && sh deploy/rootfs.sh target/release/daybook /rootfs

# Nothing but the binary, its libraries, the certificates and the time zones: no shell, no package manager.
FROM scratch
COPY --from=build /rootfs /
# data/daybook.db and data/journal of the defaults count from here.
WORKDIR /var/lib/daybook
USER 65532:65532
VOLUME /var/lib/daybook
ENV DAYBOOK_CONFIG=/etc/daybook/daybook.toml
EXPOSE 8080
STOPSIGNAL SIGTERM
# The running service, not the file, which may have changed since its start. Another port or http.tls: another address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/usr/bin/daybook", "healthcheck", "--url", "http://127.0.0.1:8080"]
ENTRYPOINT ["/usr/bin/daybook"]
CMD ["run"]
