# Runs PostgreSQL for as long as standard input is open. Whoever started us holds the other end, and however they end,
# the kernel closes it.
#   $1 pg_ctl   $2 our directory   $3... directories to remove afterwards

# If our owner is gone already, saying `ready` must not end us before the server is stopped.
trap '' PIPE

pg_ctl=$1
dir=$2
shift 2

stop() {
  "$pg_ctl" --pgdata "$dir/data" stop --silent --wait --mode "$1" --timeout 60 >>"$dir/postgres.log" 2>&1
}

if "$pg_ctl" --pgdata "$dir/data" --log "$dir/postgres.log" start --silent --wait --timeout 60 >>"$dir/postgres.log" 2>&1
then
  printf ready 2>/dev/null
  read -r _
else
  tail -n 10 "$dir/postgres.log"
fi

# `fast` disconnects everyone and writes a checkpoint; `immediate` leaves it to the next start to recover.
stop fast || stop immediate
status=$?

cd /
[ $# = 0 ] || rm -rf "$@"
exit $status
