# shellcheck shell=bash
# Sourced by the scripts beside this folder: messages, and a cache of whatever is big or slow to make.
#
# An entry is a folder named after what it was made from, so a change of any ingredient makes another entry and nothing
# is ever edited in place. Entries appear by one rename; two scripts that want the same one wait on a lock for each other.

shopt -s inherit_errexit

# What a child prints on standard output would be taken for the path that the script promises: BUILDERs get stderr.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }
usage_error() { say "$* (see ${0##*/} --help)"; exit 2; }

# The comment block under a script's first line is its help.
show_help() { sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"; }

# Prints the cache's folder. Call it in a subshell.
cache_root() {
    local root=${RVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or RVMM_CACHE}/.cache}/rvmm}
    mkdir -p "$root" || die "cannot write to $root; set RVMM_CACHE to a folder that you can write to"
    cd "$root" || return
    # What a killed script could not remove itself.
    find . -mindepth 1 -maxdepth 1 -type d -name '.*' -mtime +0 -exec rm -rf {} +
    pwd -P
}

# need GROUP COMMAND...: dies, naming the set-up group to install, unless every COMMAND is there.
need() {
    local group=$1 command
    shift
    PATH=$PATH:/usr/sbin:/sbin
    for command in "$@"; do
        command -v "$command" >/dev/null || die "$command is missing; run: resources/setup $group"
    done
}

# cached NAME INGREDIENTS BUILDER [ARG...]: prints the folder that `BUILDER ARG... FOLDER` fills, filled now if it was not.
# INGREDIENTS is text; its hash, with NAME, is the entry's identity.
cached() {
    local name=$1 key root entry temporary lock
    key=$(printf '%s' "$2" | sha256sum | cut -c1-12)
    shift 2
    root=$(cache_root)
    entry=$root/$name-$key
    if [[ ! -d $entry ]]; then
        exec {lock}>"$root/.$name-$key.lock"
        flock -n "$lock" || { say "waiting for another process that makes $entry"; flock "$lock"; }
        if [[ ! -d $entry ]]; then
            temporary=$(mktemp -d "$root/.making-$name.XXXXXX")
            # shellcheck disable=SC2064  # the path of now is meant
            trap "rm -rf '$temporary'" EXIT
            "$@" "$temporary" >&2
            chmod 755 "$temporary"
            mv -T "$temporary" "$entry"
        fi
        exec {lock}>&-
    fi
    printf '%s\n' "$entry"
}
