#!/usr/bin/env bash
# The two base images of deploy/Dockerfile where no registry of images is reached: Debian's packages by debootstrap, with
# this machine's Python and Rust in place of those that the published images have. For `make image-test BASES=local` only.
# Needs root, podman and debootstrap; BASE_PYTHON and BASE_RUST are directories (sys.base_prefix, a toolchain of rustup).
set -euo pipefail
python=${BASE_PYTHON:?the base_prefix of a Python 3.13} rust=${BASE_RUST:?a Rust toolchain 1.95}
dockerfile=$(dirname "$0")/../../deploy/Dockerfile
base() { sed -n "s/^FROM $1:\([0-9.]*\)-slim-bookworm[@ ].*/\1/p" "$dockerfile"; }
"$python/bin/python3" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$(base python)')" \
  || { echo "$python is not Python $(base python), which deploy/Dockerfile names" >&2; exit 2; }
case $("$rust/bin/rustc" --version) in "rustc $(base rust) "*) ;; *)
  echo "$rust is not Rust $(base rust), which deploy/Dockerfile names" >&2; exit 2 ;; esac

work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
if ! podman image exists localhost/bookworm; then
  packages=ca-certificates,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libreadline8,libuuid1,libexpat1,netbase,tzdata
  debootstrap --variant=minbase --include="$packages" bookworm "$work/root"
  # Who builds behind a proxy that signs for others has its certificate here.
  cp -L /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
  tar -C "$work/root" -c . | podman import --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
    --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' --change 'CMD ["/bin/sh"]' - localhost/bookworm
fi

printf '%s\n' 'lib/python*/site-packages/*' 'lib/python*/test' 'bin/pip*' 'share' > "$work/ignored"
podman build --network host --pull=never --ignorefile "$work/ignored" -f - \
  -t "docker.io/library/python:$(base python)-slim-bookworm" "$python" <<END
FROM localhost/bookworm
COPY . /usr/local/
RUN ldconfig && ln -sf python3 /usr/local/bin/python && python -m ensurepip && ln -sf pip3 /usr/local/bin/pip
CMD ["python3"]
END

printf '%s\n' share > "$work/ignored"
podman build --network host --pull=never --ignorefile "$work/ignored" -f - \
  -t "docker.io/library/rust:$(base rust)-slim-bookworm" "$rust" <<END
FROM localhost/bookworm
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . /usr/local/
END
