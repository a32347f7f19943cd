# shellcheck shell=sh
# key-install: the customer's one key, where a stock sshd looks for it (R02). AMENDS_KEY_LINE is set above.

operation=key-install

# Run with the customer's rights, see as_customer. Links that the customer planted are replaced, not followed:
# a new file (set -C refuses any that exists) is renamed over the old name.
# shellcheck disable=SC2016 # expanded by the inner shell
write_key='
  umask 077
  chmod 700 "$1" && cd "$1" || exit 1
  if [ -L .ssh ] || [ ! -d .ssh ]; then rm -rf .ssh && mkdir .ssh || exit 1; fi
  chmod 700 .ssh && cd -P .ssh || exit 1
  rm -rf .amends-key || exit 1
  set -C
  printf "%s\n" "$2" >.amends-key || exit 1
  if [ -d authorized_keys ]; then rm -rf authorized_keys || exit 1; fi
  mv -f .amends-key authorized_keys
'

operate() {
  begin_doing
  [ -n "${AMENDS_KEY_LINE-}" ] || fail 'no key to install'
  find_user || fail "there is no $AMENDS_USER"
  is_dir_of "$home" "$uid" || fail "$home is not the directory of $AMENDS_USER"
  check_login_of "$AMENDS_USER"
  as_customer sh -c "$write_key" sh "$home" "$AMENDS_KEY_LINE" || fail 'cannot write the key'
}
