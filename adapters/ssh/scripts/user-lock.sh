# shellcheck shell=sh
# user-lock: the customer is out and stays out: account closed, processes ended, keys gone (R04).

operation=user-lock

# Both names that a stock sshd reads. With the customer's rights, see as_customer; by now nothing of it runs.
# shellcheck disable=SC2016 # expanded by the inner shell
remove_keys='
  cd "$1" || exit 1
  if [ -L .ssh ] || [ ! -d .ssh ]; then rm -f .ssh; exit; fi
  chmod u+rwx .ssh
  rm -rf .ssh/authorized_keys .ssh/authorized_keys2
'

operate() {
  bury_attempt # the lock begins the undoing: a late key-install of this attempt must not open the door again
  find_user || return 0
  lock_account
  end_processes
  if is_dir_of "$home" "$uid"; then
    as_customer sh -c "$remove_keys" sh "$home" || retry_later 'cannot remove the keys'
  fi
  end_processes # a login that was let in before the lock may have arrived only now
}
