# shellcheck shell=sh
# user-remove: nothing of the customer is left, nothing that is not the customer's is touched (R02, R04).

operation=user-remove

# What is mounted there is not the customer's alone: T5, it may be a namespace.
refuse_mounted() {
  find_home
  ! newest_mount || retry_later "mounted below the home: $place"
}

delete_home() {
  exists "$home" || return 0
  if is_dir_of "$home" 0 && rmdir "$home" 2>/dev/null; then return 0; fi # user-create crashed half-way
  is_dir_of "$home" "$uid" || fail "$home is not the directory of $AMENDS_USER"
  rm -rf --one-file-system "$home" || retry_later "$home could not be deleted whole"
}

# What would start something under this name again. Best effort: a closed account is refused by all of them. The
# spools of `at` are a daemon's folders, which no customer can write to or rearrange.
forget_schedules() {
  if have crontab; then crontab -u "$AMENDS_USER" -r 2>/dev/null; fi
  rm -f "/var/lib/systemd/linger/$AMENDS_USER"
  find /var/spool/at /var/spool/cron/atjobs -xdev -maxdepth 1 -type f -user "$uid" -delete 2>/dev/null
}

# Room that the customer still takes where everybody may write: files at the top of these folders or below folders
# of its own there. With the customer's rights, so the kernel refuses whatever is not its own; find opens no symlink
# and unlinks by name inside the folder that it has open. Folders stay: removing an empty one could end a mount that
# another process has just made on it. A place with something mounted below is left alone, as it may hold a
# namespace whose files have this uid too; the mounts are a copy of our own, so that none appears under way.
# shellcheck disable=SC2016 # expanded by the inner shell
sweep='
  for place in /tmp /var/tmp /dev/shm /dev/mqueue; do
    real=$(CDPATH="" cd -P "$place" && pwd) || continue
    case $real in *[!a-z0-9/_-]*) continue ;; esac # the mount table would show it otherwise
    clear=yes
    while read -r _ _ _ _ point _; do
      case $point in "$real"/*) clear= ;; esac
    done </proc/self/mountinfo
    [ -z "$clear" ] ||
      find "$real" -xdev -mindepth 1 -maxdepth 1 -user "$1" -exec find {} -xdev ! -type d -user "$1" -delete \;
  done
'

# Best effort: since no uid is given twice, what stays is litter and nobody else's to read.
sweep_shared_places() {
  unshare -m --propagation private true 2>/dev/null || return 0
  own_mounts=yes
  as_customer sh -c "$sweep" sh "$uid" >/dev/null 2>&1
  own_mounts=
}

operate() {
  begin_undoing
  if find_user; then
    shut_out : # its keys go with its home
    refuse_mounted
    delete_home
    forget_schedules
    sweep_shared_places
    userdel "$AMENDS_USER" || retry_later "userdel refused $AMENDS_USER"
  fi
  if have groupdel && grep -q "^$AMENDS_USER:" /etc/group && exists "$state/user"; then
    groupdel "$AMENDS_USER" || retry_later "groupdel refused $AMENDS_USER"
  fi
  rm -f "$state/user"
  free_reserve
  [ -n "$remembered" ] || remember || retry_later "no room below $state_root"
}
