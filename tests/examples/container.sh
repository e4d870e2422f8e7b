# Run a command as a container would: process 1 of its own process tree, user 10001 without rights, and a root file system that is read-only
# but for /tmp. For root, in new mount and process namespaces:
#
#   unshare --mount --pid --fork sh container.sh ROOT MODELS TMP VISIBLE... -- COMMAND...
#
# ROOT: an empty directory, the new root. MODELS and TMP: what is seen at /models and /tmp. VISIBLE: what is seen where it is.
set -eu
root=$1 models=$2 tmp=$3
shift 3

show() {
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
}

mount --make-rprivate /
mount -t tmpfs -o mode=755,size=1m root "$root"
show "$tmp" /tmp rw    # before what is VISIBLE, which may lie in /tmp
while [ "$1" != -- ]; do
    if [ -L "$1" ]; then cp -P "$1" "$root$1"; elif [ -d "$1" ]; then show "$1" "$1" ro; fi
    shift
done
shift
show "$models" /models ro
mkdir "$root/proc" "$root/dev" "$root/dev/shm"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,size=64m shm "$root/dev/shm"
for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
