# shellcheck shell=sh
# What keeps a customer out of a machine on which the steps themselves go well (R02): closed logins, the settings of
# its sshd, an account that has expired, a home or a shell that cannot be used. It must not know any step. What it
# cannot find out it lets pass: the rules of PAM, of a firewall, and of a server that is not OpenSSH.

no_login() { fail "customers cannot log in: $1"; }

check_nologin() {
  for closed in /etc/nologin /run/nologin /var/run/nologin; do
    ! exists "$closed" || no_login "there is $closed"
  done
}

# --- sshd: the settings that hold for the user, asked of the daemon that serves this connection

# Sets daemon to the process that listens: the uppermost of the sshd processes right above this script. The names of
# processes are read and not the links to their programs, which would cost a process each.
find_daemon() {
  daemon=
  process=$$
  while [ "${process:-0}" -gt 0 ]; do
    read -r comm <"/proc/$process/comm" || return 1
    case $comm in
      sshd | sshd-session) daemon=$process ;;
      dropbear) return 1 ;;
      *) [ -z "$daemon" ] || return 0 ;;
    esac
    while read -r name parent; do
      [ "$name" != PPid: ] || break
    done <"/proc/$process/status"
    process=$parent
  done 2>/dev/null
  [ -n "$daemon" ]
}

# Prints the settings that hold for user $1 coming from where we come from, or fails. The daemon's arguments name its
# configuration; newer ones show them in one text, so that blanks inside of them can only be guessed. Where they
# cannot be seen it is the default one.
ask_daemon() (
  set -f
  words=$(tr '\0' ' ' <"/proc/$daemon/cmdline")
  # shellcheck disable=SC2086 # into its words
  set -- "$1" ${SSH_CONNECTION-}
  set -- -T -C "user=$1,host=${2:-127.0.0.1},addr=${2:-127.0.0.1},laddr=${4:-127.0.0.1},lport=${5:-22}"
  option=
  value=
  for word in ${words%%\[listener\]*} -; do
    case $word in
      -*)
        case $option in
          f | o | h) set -- "$@" "-$option" "$value" ;;
        esac
        word=${word#-}
        while true; do
          case $word in
            [46DGQRTdeiqrtV]*) word=${word#?} ;; # takes no value, and others may follow in the same word
            *) break ;;
          esac
        done
        value=${word#?}
        option=${word%"$value"}
        ;;
      *) value=${value:+$value }$word ;;
    esac
  done
  case $(readlink "/proc/$daemon/exe") in
    */sshd | */sshd' (deleted)') timeout -k 1 5 "/proc/$daemon/exe" "$@" ;;
    *) timeout -k 1 5 sshd "$@" ;;
  esac
) 2>/dev/null

# Sets the names below from what sshd has printed: lists, of which some have an entry in each line, and single values.
read_settings() {
  unset -v allow_users deny_users allow_groups deny_groups keys_files methods algorithms pubkey command
  IFS='
'
  for line in $1; do
    value=${line#* }
    case $line in
      'allowusers '*) allow_users="$allow_users $value" ;;
      'denyusers '*) deny_users="$deny_users $value" ;;
      'allowgroups '*) allow_groups="$allow_groups $value" ;;
      'denygroups '*) deny_groups="$deny_groups $value" ;;
      'authorizedkeysfile '*) keys_files="$keys_files $value" ;;
      'authenticationmethods '*) methods="$methods $value" ;;
      'pubkeyacceptedalgorithms '* | 'pubkeyacceptedkeytypes '*) algorithms=,$value, ;;
      'pubkeyauthentication '*) pubkey=$value ;;
      'forcecommand '*) command=$value ;;
    esac
  done
  unset IFS
}

# Is one of the names $1 meant by one of the patterns $2? As sshd has it, only * and ? are special in them. It is not
# known where customers come from, so a user's pattern with a host holds with $3 `anywhere`, and not with `here`;
# with `literal` nothing in a pattern is a host.
matches() {
  for pattern in $2; do
    case $pattern in
      *'['* | *\\*) continue ;;
      *@'*') ;;
      *@*) [ "$3" != here ] || continue ;;
    esac
    [ "$3" = literal ] || pattern=${pattern%%@*}
    for name in $1; do
      # shellcheck disable=SC2254 # it is a pattern
      case $name in
        $pattern) return 0 ;;
      esac
    done
  done
  return 1
}

# Sets expanded: the file $2 of AuthorizedKeysFile for user $1.
expand_keys_file() {
  expanded=
  rest=$2
  while [ "$rest" != "${rest#*%}" ]; do
    expanded=$expanded${rest%%\%*}
    rest=${rest#*%}
    case $rest in
      h*) expanded=$expanded$homes/$1 ;;
      u*) expanded=$expanded$1 ;;
      U*) expanded=$expanded$uid ;;
      *) expanded=$expanded% ;;
    esac
    rest=${rest#?}
  done
  expanded=$expanded$rest
  case $expanded in
    /*) ;;
    *) expanded=$homes/$1/$expanded ;;
  esac
}

# Our file must be among those that sshd reads.
check_keys_file() {
  for file in $keys_files; do
    expand_keys_file "$1" "$file"
    [ "$expanded" != "$homes/$1/.ssh/authorized_keys" ] || return 0
  done
  [ -z "$keys_files" ] || no_login "sshd's AuthorizedKeysFile is not .ssh/authorized_keys:$keys_files"
}

check_key_type() {
  case $1$algorithms in
    "$1" | ,*) return 0 ;; # no key, or nothing said about types
    ssh-rsa*,rsa-sha2-256,* | ssh-rsa*,rsa-sha2-512,* | *,"$1",*) return 0 ;;
  esac
  no_login "sshd's PubkeyAcceptedAlgorithms leave out $1"
}

# $1: the user; $2: its groups; uid is set. Nothing is refused that sshd itself would not refuse.
check_sshd() (
  set -f
  find_daemon || return 0
  settings=$(ask_daemon "$1") || return 0
  read_settings "$settings"
  ! matches "$1" "$deny_users" here || no_login "sshd's DenyUsers name $1"
  [ -z "$allow_users" ] || matches "$1" "$allow_users" anywhere || no_login "sshd's AllowUsers leave out $1"
  ! matches "$2" "$deny_groups" literal || no_login "sshd's DenyGroups name a group of $1"
  [ -z "$allow_groups" ] || matches "$2" "$allow_groups" literal || no_login "sshd's AllowGroups leave out $1"
  [ "$pubkey" != no ] || no_login "sshd's PubkeyAuthentication is off"
  [ -z "$methods" ] || matches 'any publickey' "$methods" literal || no_login "sshd's AuthenticationMethods are$methods"
  case $command in
    */nologin | nologin | */false | false) no_login "sshd's ForceCommand is $command" ;;
  esac
  check_keys_file "$1"
  words=${AMENDS_KEY_LINE% *} # without the last one, the key itself; before it stands its type
  check_key_type "${words##* }"
)

# --- the account

# In the order of /etc/shadow; a system without it has no such rules.
check_expiry() (
  entry=$(getent shadow "$1" 2>/dev/null) || return 0
  today=$(($(date +%s) / 86400))
  set -f
  IFS=:
  # shellcheck disable=SC2086 # into its fields
  set -- $entry
  case ${2-} in
    '!'*) no_login "the account $1 is locked" ;;
  esac
  [ "${8:--1}" -lt 0 ] || [ "${8}" -gt "$today" ] || no_login "the account $1 has expired"
  [ "${3:-1}" -ne 0 ] || no_login "the account $1 must change its password"
  [ "${5:--1}" -lt 0 ] || [ "$((${3:-$today} + ${5}))" -ge "$today" ] || no_login "the password of $1 has expired"
)

check_home_and_shell() {
  [ -x "$2" ] || no_login "the shell $2 cannot be executed"
  case $2 in
    */nologin | */false) no_login "the shell is $2" ;;
  esac
  # shellcheck disable=SC2016 # expanded by the inner shell
  as_customer sh -c 'cd "$1" && exec "$2" -c :' sh "$1" "$2" || no_login "$1 cannot be entered, or $2 does not run"
}

# For a user that is there. Sets nothing; uid and gid are set.
check_login_of() {
  check_nologin
  check_sshd "$1" "$(id -Gn "$1")" || exit
  check_expiry "$1" || exit
  entry=$(getent passwd "$1") || fail "there is no $1"
  shell=${entry##*:}
  entry=${entry%:*}
  [ "${entry##*:}" = "$home" ] || no_login "the home of $1 is ${entry##*:}, not $home"
  check_home_and_shell "$home" "${shell:-/bin/sh}"
}

# For anybody who could be made next.
check_login_of_any() {
  check_nologin
  { [ -d "$homes" ] && [ -w "$homes" ]; } || no_login "$homes is not a folder in which a home can be made"
  read_uids
  uid=$((given_uid + 1))
  [ "$uid" -ge 1000 ] || uid=1000
  gid=$uid
  anybody=am-00000000000000000000000000
  check_sshd "$anybody" "$anybody" || exit
  choose_shell
  check_home_and_shell "$homes" "$shell"
}
