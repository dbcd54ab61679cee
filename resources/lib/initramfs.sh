# shellcheck shell=bash
# Sourced after cache.sh: an initramfs of busybox, an /init, and kernel modules with the order to load them in.

# pack_initramfs INIT MODULE_FOLDER MODULES EXTRA FOLDER: writes FOLDER/initramfs.cpio.
# INIT is a file and becomes /init. MODULES is a list of names; those that MODULE_FOLDER (…/lib/modules/VERSION, or empty)
# has as files go to /modules with all that they depend on, and /modules/order lists them in an order that loads. What is in the folder EXTRA is laid over it all.
pack_initramfs() {
    local init=$1 module_folder=$2 modules=$3 extra=$4 folder=$5 root file
    root=$folder/root
    ! ldd "$(command -v busybox)" >/dev/null 2>&1 || die "busybox is not static; run: resources/setup images"
    mkdir -p "$root"/{bin,dev,sbin,proc,sys,run,tmp,modules}
    install -m 755 "$init" "$root/init"
    install -m 755 "$(command -v busybox)" "$root/bin/busybox"
    busybox --list | while read -r applet; do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    cp -r "$extra/." "$root"
    : >"$root/modules/order"
    if [[ -n $module_folder ]]; then
        # Decompressed here, once, rather than by each guest.
        module_files "$module_folder" "$modules" | while read -r file; do
            case $file in
                *.xz) file=${file%.xz}; xz -dc "$file.xz" >"$root/modules/${file##*/}" ;;
                *.zst) file=${file%.zst}; zstd -qdc "$file.zst" >"$root/modules/${file##*/}" ;;
                *) cp "$file" "$root/modules/" ;;
            esac
            printf '%s\n' "${file##*/}" >>"$root/modules/order"
        done
    fi
    # Not compressed: unpacking costs a guest more than reading a few MiB costs the host.
    (cd "$root" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0) >"$folder/initramfs.cpio"
    rm -r "$root"
}

# module_files MODULE_FOLDER MODULES: the files to load, dependencies first. A name that is built in, or unknown to this
# kernel, adds none.
module_files() {
    local root=${1%/lib/modules/*} version=${1##*/} name
    for name in $2; do
        modprobe -C /dev/null -d "$root" -S "$version" --show-depends "$name" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p' || true
    done | awk '!seen[$0]++'
}
