#!/bin/bash
# Process 1 of a host, in namespaces of its own (hosts.py starts it). NAME; FOLDER: the host's own; SHARED: the lab's shared one;
# PYTHON and PACKAGES: what its venv needs; CHECKOUT: this repository, which no host may see; TMP_SIZE: of its /tmp, empty at each start.
set -eu
read -r pid _ < /proc/self/stat    # as the machine counts
echo "$pid" > "$FOLDER/pid"
mount -t proc proc /proc
hostname "$NAME"
ip link set lo up

mount -t tmpfs -o size=1g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
cp "$FOLDER/etc/hostkey" "$FOLDER/etc/authorized_keys" /run/
chmod 600 /run/hostkey
mount -t tmpfs tmpfs /mnt
mkdir /mnt/shared /mnt/packages
mount --bind "$SHARED" /mnt/shared
mount --bind "$PACKAGES" /mnt/packages
for file in hosts resolv.conf; do mount --bind "$FOLDER/etc/$file" "/etc/$file"; done
case $PYTHON in /root/* | /tmp/*)
  mkdir -p "$FOLDER$PYTHON"
  mount --bind "$PYTHON" "$FOLDER$PYTHON" ;;
esac
mount -t tmpfs -o "size=$TMP_SIZE" tmpfs "$FOLDER/tmp"
chmod 1777 "$FOLDER/tmp"
mount --bind "$FOLDER/tmp" /var/tmp
mount --rbind "$FOLDER/root" /root
case $CHECKOUT in /root/* | /tmp/*) ;; *) mount -t tmpfs tmpfs "$CHECKOUT" ;; esac
mount --rbind "$FOLDER/tmp" /tmp
mount -o remount,ro,bind /

cd /root
trap : TERM INT HUP
env -i /usr/sbin/sshd -D -e -f /dev/null -o HostKey=/run/hostkey -o AuthorizedKeysFile=/run/authorized_keys -o StrictModes=no \
  -o PermitRootLogin=prohibit-password -o UsePAM=no -o MaxStartups=50:30:100 -o PidFile=none &
while :; do sleep 3600 & wait $! || true; done
