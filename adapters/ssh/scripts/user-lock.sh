# shellcheck shell=sh
# user-lock: the customer is out and stays out: account closed, processes ended, keys gone (R04).

operation=user-lock

# Both names that a stock sshd reads. With the customer's rights, see as_customer; by now nothing of it runs. Only
# acts that nothing the customer left there can refuse or draw out: the home is its own, so its mode can be set; a
# .ssh from which the two names do not go, as they are folders, say, is moved aside whole, a rename in its place.
# shellcheck disable=SC2016 # expanded by the inner shell
remove_keys='
  chmod 700 "$1" && cd "$1" || exit 1
  if [ -d .ssh ] && [ ! -L .ssh ]; then
    chmod 700 .ssh && rm -f .ssh/authorized_keys .ssh/authorized_keys2 && exit 0
  fi 2>/dev/null
  if [ -e .ssh ] || [ -L .ssh ]; then mv .ssh "$(mktemp -u .closed-XXXXXXXXXX)"; fi
'

take_keys() {
  if is_dir_of "$home" "$uid"; then
    as_customer sh -c "$remove_keys" sh "$home" || retry_later 'cannot remove the keys'
  fi
}

operate() {
  begin_undoing # the lock begins the undoing: a late key-install of this attempt must not open the door again
  if find_user; then shut_out take_keys; fi
  [ -n "$remembered" ] || remember || retry_later "no room below $state_root"
}
