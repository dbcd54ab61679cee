# shellcheck shell=bash
# Sourced after cache.sh: Debian packages, fetched and unpacked without installing them.

# newest_package REGEX...: "NAME VERSION" of the newest package whose whole name matches the first extended REGEX that
# any matches.
newest_package() {
    local found
    found=$(packages_matching "$@")
    if [[ -z $found && $(id -u) == 0 ]]; then
        say "refreshing apt's package lists"
        apt-get -qq update >&2
        found=$(packages_matching "$@")
    fi
    [[ -n $found ]] || die "apt knows no package $*; run 'apt-get update', or add the suite that has it (for 6.12 on Debian 12: bookworm-backports)"
    sort -V <<<"$found" | tail -n 1
}

packages_matching() {
    local regex found
    for regex in "$@"; do
        found=$(apt-cache search --full --names-only "^($regex)\$" | awk '/^Package: /{name = $2} /^Version: /{print name, $2}')
        [[ -z $found ]] || break
    done
    printf '%s' "$found"
}

# unpack_package NAME FOLDER
unpack_package() {
    local download
    download=$(mktemp -d "$2/.download.XXXXXX")
    say "fetching $1"
    download_package "$1" "$download" || {
        # A point release replaces packages under an old list.
        [[ $(id -u) == 0 ]] || die "cannot fetch $1; run 'sudo apt-get update' and try again"
        apt-get -qq update >&2
        download_package "$1" "$download" || die "cannot fetch $1; is Debian's archive reachable?"
    }
    dpkg -x "$download"/*.deb "$2"
    rm -r "$download"
}

download_package() {
    local sandbox=()
    [[ $(id -u) != 0 ]] || sandbox=(-o APT::Sandbox::User=root)
    (cd "$2" && apt-get -qq "${sandbox[@]}" download "$1" >&2)
}

# unpack_kernel NAME FOLDER: also what installing a kernel would add, the index of its modules.
unpack_kernel() {
    local modules
    unpack_package "$1" "$2"
    modules=("$2"/lib/modules/*)
    depmod -b "$2" "${modules[0]##*/}"
}
