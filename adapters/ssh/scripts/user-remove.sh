# shellcheck shell=sh
# user-remove: nothing of the customer is left, nothing that is not the customer's is touched (R02, R04).

operation=user-remove

# The mount table escapes blanks and backslashes in octal; the home is escaped alike and compared, which needs no
# decoding of others' names. What is mounted there is not the customer's alone: T5, it may be a namespace.
refuse_mounted() {
  parent=$(CDPATH='' cd -P "$homes" && pwd) || fail "$homes cannot be entered"
  tab=$(printf '\t')
  real=$(printf '%s' "$parent/$AMENDS_USER" | sed 's/\\/\\134/g; s/ /\\040/g; s/'"$tab"'/\\011/g')
  [ -r /proc/self/mountinfo ] || fail '/proc/self/mountinfo cannot be read'
  while read -r _ _ _ _ place _; do
    case $place in
      "$real" | "$real"/*) retry_later "mounted below the home: $place" ;;
    esac
  done </proc/self/mountinfo
}

delete_home() {
  exists "$home" || return 0
  if is_dir_of "$home" 0 && rmdir "$home" 2>/dev/null; then return 0; fi # user-create crashed half-way
  is_dir_of "$home" "$uid" || fail "$home is not the directory of $AMENDS_USER"
  rm -rf --one-file-system "$home" || retry_later "$home could not be deleted whole"
}

# What would start something under this name again. Best effort: a closed account is refused by both.
forget_schedules() {
  if have crontab; then crontab -u "$AMENDS_USER" -r 2>/dev/null; fi
  rm -f "/var/lib/systemd/linger/$AMENDS_USER"
}

operate() {
  bury_attempt # before anything is removed: a late step of this attempt must find it (R02)
  if find_user; then
    lock_account
    end_processes
    refuse_mounted
    delete_home
    forget_schedules
    userdel "$AMENDS_USER" || retry_later "userdel refused $AMENDS_USER"
  fi
  if have groupdel && grep -q "^$AMENDS_USER:" /etc/group && exists "$state/user"; then
    groupdel "$AMENDS_USER" || retry_later "groupdel refused $AMENDS_USER"
  fi
  rm -f "$state/user"
}
