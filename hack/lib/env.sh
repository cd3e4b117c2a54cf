# Sourced by hack's commands: where things are, and the Python environment.
# Everything that is built is kept in VK_CACHE_DIR by the hash of its inputs.
VK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export VK_ROOT
export VK_CACHE_DIR=${VK_CACHE_DIR:-/var/cache/vk-provider}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# ensure_packages NAME... installs the Debian packages that are not there yet.
ensure_packages() {
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null)" = "ii " ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "needs the Debian packages ${missing[*]}; run as root, or install them first"
  say "Installing Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# ensure_venv makes the Python environment and puts it first on PATH.
ensure_venv() {
  ensure_packages python3 python3-venv
  local key venv
  key=$( (cat "$VK_ROOT/hack/requirements.txt" "$VK_ROOT/hack/lib/env.sh"; /usr/bin/python3 --version) | sha256sum | cut -c1-16)
  venv=$VK_CACHE_DIR/venv/$key
  if [ ! -e "$venv/.complete" ]; then
    mkdir -p "$VK_CACHE_DIR/venv"
    exec 9>"$VK_CACHE_DIR/venv/.lock" # two commands at once: the second waits for the first
    flock 9
  fi
  if [ ! -e "$venv/.complete" ]; then
    say "Installing the Python packages of hack/requirements.txt into $venv"
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$VK_ROOT/hack/requirements.txt"
    # The command as it is after an installation, from whichever checkout PYTHONPATH names.
    printf '#!/bin/sh\nexec "%s/bin/python" -m vk_provider.cli "$@"\n' "$venv" > "$venv/bin/vk-provider"
    chmod +x "$venv/bin/vk-provider"
    touch "$venv/.complete"
  fi
  exec 9>&-
  export PATH=$venv/bin:$PATH
  export PYTHONPATH=$VK_ROOT${PYTHONPATH:+:$PYTHONPATH}
}

# ensure_host_packages installs what a host of microVMs needs beside Python.
ensure_host_packages() {
  # qemu: the hypervisor. skopeo, umoci, erofs-utils: images. CNI plugins, iproute2, nftables,
  # iptables: the pods' network and kube-proxy. docker-registry, busybox-static, mmdebstrap: the
  # local registry and what is in it.
  ensure_packages qemu-system-x86 skopeo umoci erofs-utils e2fsprogs util-linux procps \
    containernetworking-plugins iproute2 nftables iptables kmod conntrack \
    docker-registry busybox-static mmdebstrap ca-certificates
}
