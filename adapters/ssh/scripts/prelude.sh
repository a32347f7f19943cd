# shellcheck shell=sh disable=SC2317,SC2034 # no step calls all of the functions below, or reads all of the names
# What every step script begins with: arguments, lock, epoch, tombstones, and the few acts that several steps
# share. It must not know any step. It is sent in front of one step file and run by `sh -s`; it only defines
# functions, and the call is the last line sent; that it arrives whole or does nothing is seen to in `commands.py`.
#
# Exit codes: 0 done, 74 try again, 75 stale epoch or undone attempt, anything else failed. 0 counts only with the
# line that amends_main prints as its last act.

AMENDS_KEY_LINE=@KEY_LINE@
state_root=@STATE_ROOT@
homes=/home
mounts=/proc/self/mountinfo
lock_tries=100 # about 10 s: shorter than any step's deadline in production, and a refusal costs nothing
kill_tries=50  # about 5 s
keep_days=7

say() { printf 'amends: %s\n' "$1" >&2; }
fail() {
  say "$1"
  exit 1
}
retry_later() {
  say "$1"
  exit 74
}
refuse_late() {
  say "$1"
  exit 75
}
have() { command -v "$1" >/dev/null 2>&1; }
pause() { sleep 0.1 2>/dev/null || sleep 1; }
exists() { [ -e "$1" ] || [ -L "$1" ]; }

# Replaced by rename: a reader, or a crash, sees the old file or the new one. Not synced: after a power loss no
# late command is left on any connection, so there is nothing that a lost epoch or tombstone would let in.
put() { keep "$1" "$2" || fail "cannot write $1"; }
keep() { printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1"; }

# --- arguments: they become parts of paths and of command lines, so they are held to their shape here again

is_name() {
  case $1 in
    '' | [!a-z0-9]* | *[!a-z0-9_-]*) return 1 ;;
  esac
  [ "${#1}" -le 64 ]
}

check_arguments() {
  [ "${AMENDS_OP-}" = "$operation" ] || fail 'AMENDS_OP is not this script'
  case ${AMENDS_EPOCH-} in
    '' | *[!0-9]* | 0?*) fail 'AMENDS_EPOCH is not a number' ;;
  esac
  [ "${#AMENDS_EPOCH}" -le 18 ] || fail 'AMENDS_EPOCH is too large'
  case ${AMENDS_NONCE-} in
    *[!0-9a-f]*) fail 'AMENDS_NONCE is not a nonce' ;;
    ????????????????) ;;
    *) fail 'AMENDS_NONCE is not a nonce' ;;
  esac
  if [ "$operation" = probe ]; then
    [ "${AMENDS_USER-} ${AMENDS_ALLOCATION-} ${AMENDS_ATTEMPT-}" = '- - -' ] || fail 'a probe names nobody'
    return
  fi
  case ${AMENDS_USER-} in
    am-*[!0-9a-z]*) fail 'AMENDS_USER is not a customer' ;;
    am-??????????????????????????) ;;
    *) fail 'AMENDS_USER is not a customer' ;;
  esac
  [ "${AMENDS_ALLOCATION-}" = "alloc_${AMENDS_USER#am-}" ] || fail 'AMENDS_ALLOCATION is not of this user'
  is_name "${AMENDS_ATTEMPT-}" || fail 'AMENDS_ATTEMPT is not an id'
}

# --- lock: one for the node, so that pruning is safe and useradd never meets another one's lock on passwd. The
# kernel lets go of it when its holder dies, however it dies; nothing on the disk can keep a node closed.

take_lock() {
  have flock || fail 'missing on the node: flock'
  mkdir -p "$state_root" || fail "cannot make $state_root"
  { [ -d "$state_root" ] && [ ! -L "$state_root" ]; } || fail "$state_root is not a directory"
  chmod 700 "$state_root" || fail "cannot close $state_root"
  exec 9>"$state_root/lock"
  tries=$lock_tries
  until flock -n 9; do
    [ "$tries" -gt 0 ] || retry_later "another step holds the lock in $state_root"
    tries=$((tries - 1))
    pause
  done
}

# --- epochs and tombstones (A5, R02)

check_epoch() {
  seen=0
  if [ -f "$state/epoch" ]; then read -r seen <"$state/epoch" || :; fi
  case $seen in
    '' | *[!0-9]*) seen=0 ;;
  esac
  if [ "$AMENDS_EPOCH" -lt "$seen" ]; then
    refuse_late "stale epoch $AMENDS_EPOCH, highest seen $seen"
  fi
}

note_epoch() { keep "$state/epoch" "$AMENDS_EPOCH"; } # also when equal: it renews the age that prune looks at

# How a step of the set-up begins. Under the lock a later step sees all of this or nothing.
begin_doing() {
  note_epoch || fail "cannot write $state/epoch"
  refuse_undone
}

# How an undo begins: before anything is undone, so that a late step of this attempt finds it (R02). A customer who has
# filled the disk is locked out all the same: then it is written as soon as there is room, see shut_out.
begin_undoing() {
  remembered=
  if remember 2>/dev/null; then remembered=yes; fi
}

remember() { note_epoch && keep "$state/undone-$AMENDS_ATTEMPT" "$operation"; }

# Room that a customer cannot take: real bytes, made when the disk is not yet the customer's to fill.
free_reserve() { rm -f "$state/reserve"; }

refuse_undone() {
  ! exists "$state/undone-$AMENDS_ATTEMPT" || refuse_late "attempt $AMENDS_ATTEMPT was undone"
}

# Others' memories, once they are old and their user is gone. Age counts from the last step of the allocation.
prune() {
  find "$state_root" -mindepth 1 -maxdepth 1 -type d -name 'alloc_*' -mtime "+$((keep_days - 1))" |
    while IFS= read -r old; do
      [ "$old" = "$state" ] || id "am-${old##*/alloc_}" >/dev/null 2>&1 || rm -rf "$old"
    done
}

# --- uids: none is given twice on a node, so whatever a customer leaves outside its home never becomes another's

login_def() {
  found=$(sed -n "s/^[[:space:]]*$1[[:space:]]\{1,\}\([1-9][0-9]*\).*/\1/p" /etc/login.defs 2>/dev/null | sed -n '$p')
  printf '%s\n' "${found:-$2}"
}

# Sets given_uid, the highest one given so far, and highest_uid, the last one that may be.
read_uids() {
  last_uid=$state_root/last-uid
  highest_uid=$(login_def UID_MAX 60000)
  given_uid=0
  if exists "$last_uid"; then read -r given_uid <"$last_uid" || :; fi
  case $given_uid in
    '' | 0?* | *[!0-9]* | ???????????*) fail "$last_uid is damaged: write the highest uid ever given here into it" ;;
  esac
  [ "$given_uid" -lt "$highest_uid" ] || fail "no uid is left: raise UID_MAX ($highest_uid) in /etc/login.defs"
}

is_taken() {
  for base in passwd group; do
    getent "$base" "$1" >/dev/null
    case $? in
      0) return 0 ;;
      2) ;;
      *) retry_later "cannot ask for the uid $1 in $base" ;;
    esac
  done
  return 1
}

settle() { sync "$1" 2>/dev/null || sync; }

# Sets new_uid, free as a user's and as a group's, and has it on the disk before anything is made with it: one that
# is not used after all is lost, which costs nothing.
give_uid() {
  read_uids
  new_uid=$((given_uid + 1))
  for least in "$(login_def UID_MIN 1000)" 500; do # 500: see find_user
    [ "$new_uid" -ge "$least" ] || new_uid=$least
  done
  while { [ "$new_uid" -gt 60000 ] && [ "$new_uid" -le 65535 ]; } || is_taken "$new_uid"; do # systemd's, nobody, -1
    new_uid=$((new_uid + 1))
  done
  [ "$new_uid" -le "$highest_uid" ] || fail "no uid is left: raise UID_MAX ($highest_uid) in /etc/login.defs"
  printf '%s\n' "$new_uid" >"$last_uid.new" || fail "cannot write $last_uid.new"
  settle "$last_uid.new"
  mv -f "$last_uid.new" "$last_uid" || fail "cannot write $last_uid"
  settle "$state_root"
}

# --- the user

# Sets uid and gid. A user is ours if the marker written before its creation says so; any other user of that
# name, and whatever has a system's uid, is never touched.
find_user() {
  uid=$(id -u "$AMENDS_USER" 2>/dev/null) || return 1
  gid=$(id -g "$AMENDS_USER") || fail "$AMENDS_USER has no group"
  owner=
  if [ -f "$state/user" ]; then read -r owner <"$state/user" || :; fi
  case $owner in
    creating | "$uid") ;;
    *) fail "the user $AMENDS_USER was not made by this allocation" ;;
  esac
  [ "$uid" -ge 500 ] || fail "the user $AMENDS_USER has the uid $uid of the system"
}

# Sets shell, the one that customers get.
choose_shell() {
  shell=/bin/sh
  if [ -x /bin/bash ]; then shell=/bin/bash; fi
}

is_dir_of() { [ -n "$(find "$1" -prune -type d -user "$2" 2>/dev/null)" ]; } # no symlink is a directory here

# Everything below a home belongs to the customer, who may turn any part of it into a symlink at any instant. No
# check made by root beforehand holds, so root never opens a path in there: what must be done is done with the
# customer's own rights, and then the worst that can be reached is the customer's. The lock is not inherited, and
# the time is bounded, because the customer may also stop processes of its own uid. With own_mounts set, in a copy
# of the mounts that nobody else sees or changes.
own_mounts=
as_customer() {
  timeout -k 1 5 ${own_mounts:+unshare -m --propagation private} \
    setpriv --reuid "$uid" --regid "$gid" --clear-groups --no-new-privs env -i PATH="$PATH" LC_ALL=C "$@" 9>&-
}

# The password is locked for daemons that ask for it, the account is expired for those that do not (PAM).
lock_account() { usermod -L -e 1 "$AMENDS_USER"; }

# Real, effective, saved and file-system uid: a set-uid program that the customer started counts too.
customer_processes() {
  found=$(grep -slE "^Uid:.*[[:space:]]$uid([[:space:]]|\$)" /proc/[0-9]*/status)
  [ "$?" -le 2 ] || retry_later 'cannot list the processes'
  for status in $found; do
    pid=${status#/proc/}
    if grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "$status"; then printf '%s ' "${pid%/status}"; fi
  done
}

# `kill -1` with the customer's rights reaches all of its processes at once, which no list does when they fork.
# shellcheck disable=SC2016 # expanded by the inner shell
kill_all='[ "$(id -u)" = "$1" ] && [ "$1" -gt 0 ] && kill -KILL -1'

# The first time without looking: what runs in the customer's user namespace under another uid is on no list, and
# only the owner's own kill is known to reach it.
end_processes() {
  as_customer sh -c "$kill_all" sh "$uid" 2>/dev/null
  tries=$kill_tries
  while living=$(customer_processes) || exit "$?"; [ -n "$living" ]; do
    [ "$tries" -gt 0 ] || retry_later "processes of $AMENDS_USER still run: $living"
    as_customer sh -c "$kill_all" sh "$uid" 2>/dev/null
    for pid in $living; do kill -KILL "$pid" 2>/dev/null; done
    tries=$((tries - 1))
    pause
  done
}

# $1: what to do about the customer's keys. The account is closed first: whoever is in by then is ended, and nobody
# gets in any more. On a full disk that and our memory need room, so the customer is ended before the reserve is freed:
# it would take that too. What needs no room (processes, keys) is done in any case.
shut_out() {
  if [ -z "$remembered" ]; then
    end_processes
    unmount_own
    "$1"
    end_processes
    free_reserve
    remember || retry_later "no room below $state_root"
  fi
  closed=yes
  lock_account || closed=
  end_processes
  unmount_own
  "$1"
  end_processes # a login that was let in before the lock may have arrived only now
  [ -n "$closed" ] || retry_later "cannot lock $AMENDS_USER"
}

# --- mounts in a home. Nothing is unmounted that is not provably the customer's own (T5): a FUSE mount, which the
# kernel says is of exactly this uid, and on which or below which nothing else is mounted.

# Sets real: the home as the mount table has it, which escapes blanks and backslashes in octal; comparing them escaped
# needs no decoding of others' names.
find_home() {
  parent=$(CDPATH='' cd -P "$homes" && pwd) || fail "$homes cannot be entered"
  tab=$(printf '\t')
  real=$(printf '%s' "$parent/$AMENDS_USER" | sed 's/\\/\\134/g; s/ /\\040/g; s/'"$tab"'/\\011/g')
  [ -r "$mounts" ] || fail "$mounts cannot be read"
}

# Sets place, kind and options of the newest mount at the home or below it; a mount stands after what it lies on.
newest_mount() {
  place=
  while read -r _ _ _ _ point rest; do
    case $point in
      "$real" | "$real"/*)
        place=$point
        rest=${rest#* - }
        kind=${rest%% *}
        options=${rest##* }
        ;;
    esac
  done <"$mounts"
  [ -n "$place" ]
}

is_own_fuse() {
  case $kind in
    fuse | fuse.*) ;;
    *) return 1 ;;
  esac
  case ,$options, in
    *,"user_id=$uid",*) return 0 ;;
  esac
  return 1
}

# Its processes have ended, so that nothing can change the way to the place. Best effort: what stays is refused later.
unmount_own() {
  have umount || return 0
  find_home
  last=
  while newest_mount && is_own_fuse && [ "$place" != "$last" ]; do
    last=$place
    path=$(printf '%b.' "$(printf '%s' "$place" | sed 's/\\/\\0/g')")
    timeout -k 1 5 umount -l "${path%.}" || return 0
  done
}

amends_main() {
  PATH=/usr/sbin:/usr/bin:/sbin:/bin
  LC_ALL=C
  export PATH LC_ALL
  umask 077
  cd / || fail 'no root directory'
  trap '' HUP PIPE # a step that has begun ends, also when nobody listens any more
  check_arguments
  if [ "$operation" != probe ]; then
    state=$state_root/$AMENDS_ALLOCATION
    home=$homes/$AMENDS_USER
    take_lock
    mkdir -p "$state" || fail "cannot make $state"
    check_epoch
    prune
  fi
  # Nothing that a step runs, least of all the customer's, has the standard output on which the last line counts.
  (operate; exit 0) >/dev/null || exit
  printf '\namends-done %s %s\n' "$operation" "$AMENDS_NONCE" # a line of its own, whatever stands before it
  exit 0
}
