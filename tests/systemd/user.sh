#!/bin/sh
# user.sh UID - in a host of the tests (host.sh): starts a systemd of that user's own, as the host's would when the user
# logs in, and a bus beside it.
set -eu
user=$1
runtime=/run/user/$user
units=$runtime/systemd/user

cp /etc/passwd /run/passwd
echo "somebody:x:$user:$user::/:/bin/sh" >>/run/passwd
mount --bind /run/passwd /etc/passwd

# As with the host's, none of the machine's own units.
mkdir -p "$units"
for target in basic shutdown; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$units/$target.target"
done
printf 'Wants=dbus.socket\n' >>"$units/basic.target"
printf '[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%%t/bus\n' >"$units/dbus.socket"
printf '[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile\n' \
    >"$units/dbus.service"
chown -R "$user:$user" "$runtime"
chmod 700 "$runtime"

systemd-run --quiet --unit="user@$user.service" --slice="user-$user.slice" --uid="$user" \
    --property=Delegate=yes --property=Type=notify --property=DefaultDependencies=no \
    --setenv=XDG_RUNTIME_DIR="$runtime" --setenv=SYSTEMD_UNIT_PATH="$units:$runtime/systemd/transient" \
    --setenv=SYSTEMD_GENERATOR_PATH=/none --setenv=SYSTEMD_LOG_TARGET=console \
    "$(command -v systemd || echo /lib/systemd/systemd)" --user --unit=basic.target

# The bus starts when somebody comes, and the systemd comes there after that.
until setpriv --reuid="$user" --regid="$user" --clear-groups \
    busctl --address="unix:path=$runtime/bus" status org.freedesktop.systemd1 >/dev/null 2>&1; do
    sleep 0.05
done
