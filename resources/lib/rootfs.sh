# shellcheck shell=bash
# shellcheck disable=SC2154  # whoever sources it has set `here`, the folder of the scripts
# Sourced after cache.sh: the folder that a guest's root file system is made of.

# What the folder is made of beside busybox itself, for the hash of a cache entry.
busybox_tree_files=(lib/rootfs.sh mkrootfs guest/sysinit guest/session guest/end guest/inittab guest/udhcpc-script)

# busybox_ingredients: text that changes when what `busybox_tree` makes does.
busybox_ingredients() {
    (cd "$here" && cat "${busybox_tree_files[@]}")
    sha256sum "$(command -v busybox)"
}

# busybox_tree FOLDER: fills it with busybox under all its names, and what boots it (guest/inittab).
busybox_tree() {
    local root=$1 applet
    mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,etc/rvmm,etc/udhcpc,mnt,root,sbin,usr/bin,usr/sbin,var}
    install -m 755 "$(command -v busybox)" "$root/bin/busybox"
    busybox --list-full | while read -r applet; do
        [[ -e $root/$applet ]] || { mkdir -p "$root/${applet%/*}"; ln -s /bin/busybox "$root/$applet"; }
    done
    install -m 755 "$here/guest/sysinit" "$here/guest/session" "$root/etc/rvmm/"
    install -m 755 "$here/guest/end" "$root/sbin/end"
    install -m 755 "$here/guest/udhcpc-script" "$root/etc/udhcpc/default.script"
    ln -sf /bin/busybox "$root/sbin/init"
    install -m 644 "$here/guest/inittab" "$root/etc/inittab"
    echo guest >"$root/etc/hostname"
    echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
    echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    ln -s /proc/mounts "$root/etc/mtab"
    # The root may be read-only: a name server that DHCP brings is kept in memory.
    ln -s /run/resolv.conf "$root/etc/resolv.conf"
}

# copy_program PROGRAM FOLDER: a program of this machine, with the libraries that it names, below FOLDER where it is here.
copy_program() {
    local program file
    program=$(readlink -f "$1")
    install -D -m 755 "$program" "$2/usr/bin/${1##*/}"
    program_libraries "$program" | while read -r file; do
        [[ -e $2/$file ]] || install -D -m 755 "$(readlink -f "$file")" "$2/$file"
    done
}

# program_libraries PROGRAM: the paths of its shared libraries and of the loader.
program_libraries() {
    ldd "$1" | sed -nE 's/.*=> (\/[^ ]+) .*/\1/p; s/^\s*(\/[^ ]+) \(.*/\1/p'
}

# deliver MASTER IMAGE: prints MASTER, or, when IMAGE is not empty, makes that a writable copy of it and prints IMAGE.
deliver() {
    local master=$1 image=$2 temporary
    if [[ -z $image ]]; then
        printf '%s\n' "$master"
        return
    fi
    [[ ! -e $image || -f $image ]] || die "$image is there and is no file"
    temporary=$(mktemp "$image.XXXXXX") || die "cannot write beside $image"
    # shellcheck disable=SC2064  # the path of now is meant
    trap "rm -f '$temporary'" EXIT
    cp --sparse=always --reflink=auto --no-preserve=mode "$master" "$temporary"
    chmod "$(printf '%o' $((0666 & ~$(umask))))" "$temporary"
    mv -T "$temporary" "$image"
    printf '%s\n' "$image"
}
