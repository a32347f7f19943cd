# shellcheck shell=sh
# user-create: the customer's account and home (R02). Done twice it is done once.

operation=user-create

add_user() {
  ! exists "$home" || fail "$home exists already"
  choose_shell
  give_uid
  # The gid is the uid, and thereby new as well.
  set -- -u "$new_uid" -K "GID_MIN=$new_uid" -K "GID_MAX=$new_uid"
  # No subordinate uids: what runs as one of them is seen by none of our lists, and the next customer would get the
  # same. Where the files are missing useradd gives none, and may be too old to know the settings.
  if exists /etc/subuid || exists /etc/subgid; then set -- "$@" -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0; fi
  put "$state/user" creating # before useradd: a crash between the two must not leave a user that is nobody's
  # '*' is no password and yet not "locked", which some sshd would take for a refusal of keys as well. Neither the
  # account nor a password that it does not have expires by the machine's defaults: the rental's end is its end.
  useradd -M -U "$@" -K PASS_MAX_DAYS=-1 -e '' -f -1 -d "$home" -s "$shell" -p '*' -c "$AMENDS_ALLOCATION" \
    "$AMENDS_USER" ||
    fail "useradd refused $AMENDS_USER"
}

# The directory is root's until it is complete, and it lies in root's directory, so nobody can swap it meanwhile.
make_home() {
  if ! exists "$home"; then mkdir -m 700 "$home" || fail "cannot make $home"; fi
  if is_dir_of "$home" 0; then
    if have restorecon; then restorecon "$home"; fi
    chown -h "$uid:$gid" "$home" || fail "cannot give $home away"
    if [ -d /etc/skel ]; then as_customer cp -R /etc/skel/. "$home" || say "cannot copy /etc/skel"; fi
  fi
  is_dir_of "$home" "$uid" || fail "$home is not the directory of $AMENDS_USER"
}

# The room that locking the customer out will need, whatever it has filled by then: our memory, and the tools' copies
# of the files of accounts. No zeros, which some file systems do not store.
make_reserve() {
  ! exists "$state/reserve" || return 0
  dd if=/dev/urandom of="$state/reserve.new" bs=4096 count=64 2>/dev/null && mv -f "$state/reserve.new" "$state/reserve" &&
    return 0
  rm -f "$state/reserve.new"
  fail "no room for a reserve below $state_root"
}

operate() {
  begin_doing
  make_reserve
  if ! find_user; then
    add_user
    find_user || fail "useradd made no $AMENDS_USER"
  fi
  put "$state/user" "$uid"
  make_home
}
