# shellcheck shell=sh
# probe: can this machine carry the other steps, and could a customer log in to it? It changes nothing, not even the
# memory of epochs.

operation=probe

operate() {
  [ "$(id -u)" -eq 0 ] || fail 'the login is not root'
  missing=
  for tool in chmod chown cp date dd env find flock getent grep id mkdir mktemp mv readlink rm rmdir sed setpriv sleep \
    sync timeout tr useradd userdel usermod; do
    have "$tool" || missing="$missing $tool"
  done
  [ -z "$missing" ] || fail "missing on the node:$missing"
  rm -f --one-file-system "$state_root/none" || fail 'rm cannot stay on one file system'
  [ -r /proc/self/mountinfo ] || fail '/proc/self/mountinfo cannot be read'
  check_login_of_any
}
