# Runs PostgreSQL for as long as standard input is open. Whoever started us holds the other end, and however they end,
# the kernel closes it.
#   $1 pg_ctl   $2 our directory   $3... directories to remove afterwards

# If our owner is gone already, saying `ready` must not end us before the server is stopped.
trap '' PIPE

pg_ctl=$1
dir=$2
shift 2

server() {
  head -n 1 "$dir/data/postmaster.pid" 2>/dev/null
}

runs() {
  [ "$(server)" = "$pid" ] && kill -0 "$pid" 2>/dev/null
}

# By its process, and not by `pg_ctl stop`, which goes by what the directory says then: when our owner was killed, the next one
# may have stopped our server already and have one of its own there.
stop() {
  runs && kill -s "$1" "$pid"
  tries=600
  while runs; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    sleep 0.1
  done
}

if "$pg_ctl" --pgdata "$dir/data" --log "$dir/postgres.log" start --silent --wait --timeout 60 >>"$dir/postgres.log" 2>&1
then
  pid=$(server)
  printf ready 2>/dev/null
  read -r _
else
  pid=$(server)
  tail -n 10 "$dir/postgres.log"
fi

# A `fast` stop disconnects everyone and writes a checkpoint; an `immediate` one leaves it to the next start to recover.
stop INT || stop QUIT
status=$?

cd /
[ $# = 0 ] || rm -rf "$@"
exit $status
