#!/usr/bin/env bash
# MLflow's server on the head, on 127.0.0.1, with its records in PostgreSQL. Database and artifacts lie below DIR, a
# folder that outlives the head (shared storage), so that the next head continues with the same records.
#
#   mlflow_server.sh start DIR           start both, or say that they run; waits until MLflow answers
#   mlflow_server.sh stop DIR            end both
#   mlflow_server.sh backup DIR FILE     everything into one tar file, while the server runs
#   mlflow_server.sh restore DIR FILE    into a DIR without records; then start
#
# MLFLOW_PORT (5000). MLFLOW_DATABASE_URI=postgresql://... names a database elsewhere; then none is started here.
# MLFLOW_AUTH_CONFIG_PATH names MLflow's file of users and rights (docs/cluster.md); without it every user of this host may all.
# PostgreSQL listens on a socket in a folder of its user alone, on no address. `flock` lets one host at a time use DIR.
set -euo pipefail

die() { echo "error: $*" >&2; exit 2; }

[ $# -ge 2 ] || die "usage: mlflow_server.sh start|stop|backup|restore DIR [FILE]"
command=$1 file=${3:-}
[ -d "$2" ] || mkdir "$2" || die "$2: the folder above it isn't there; mount the shared storage"
dir=$(cd "$2" && pwd)
port=${MLFLOW_PORT:-5000}
run=${TMPDIR:-/tmp}/mlflow-$(id -u)-$port    # this host's: socket, process numbers, logs
mkdir -p "$run" && chmod 711 "$run"

if [ -n "${MLFLOW_DATABASE_URI:-}" ]; then
  uri=$MLFLOW_DATABASE_URI
else
  socket=$run/socket
  uri="postgresql://mlflow@/mlflow?host=$socket"
  for bin in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do [ -d "$bin" ] && PATH=$bin:$PATH; done
  command -v pg_ctl >/dev/null || die "PostgreSQL isn't installed here: apt install postgresql, or name a database by MLFLOW_DATABASE_URI"
fi

# PostgreSQL refuses to work for root.
as_postgres() { if [ "$(id -u)" = 0 ]; then (cd / && exec runuser -u postgres -- "$@"); else "$@"; fi; }
owned() { mkdir -p "$1" && chmod 700 "$1" && if [ "$(id -u)" = 0 ]; then chown postgres "$1"; fi; }
answers() { curl -sf -m 5 -o /dev/null "http://127.0.0.1:$port/health"; }

only_this_host() {
  exec 9>"$dir/lock"
  # A host that was cut off keeps its lock until its lease on the storage ends.
  flock -w 120 9 || die "$dir: MLflow's server of another host, or a backup's restore, works on it"
}

start_database() {
  [ -z "${MLFLOW_DATABASE_URI:-}" ] || return 0
  owned "$dir/postgres"; owned "$socket"
  if [ ! -f "$dir/postgres/PG_VERSION" ]; then
    as_postgres initdb --pgdata "$dir/postgres" --username mlflow --auth trust --encoding UTF8 --locale C.UTF-8 >"$run/initdb.log" 2>&1 \
      || { tail -n 5 "$run/initdb.log" >&2; die "$dir/postgres: no database can be made there"; }
  fi
  rm -f "$dir/postgres/postmaster.pid"    # of a host that is gone: the lock says so
  : >"$run/postgres.log"; if [ "$(id -u)" = 0 ]; then chown postgres "$run/postgres.log"; fi
  as_postgres pg_ctl start --silent --wait --pgdata "$dir/postgres" --log "$run/postgres.log" \
    --options "-c listen_addresses='' -c unix_socket_directories='$socket' -c unix_socket_permissions=0700" >/dev/null \
    || { tail -n 5 "$run/postgres.log" >&2; die "$dir/postgres: PostgreSQL doesn't start"; }
  psql -qtA "postgresql://mlflow@/postgres?host=$socket" -c "SELECT 1 FROM pg_database WHERE datname = 'mlflow'" | grep -q 1 \
    || psql -q "postgresql://mlflow@/postgres?host=$socket" -c "CREATE DATABASE mlflow"
}

stop_database() {
  [ -n "${MLFLOW_DATABASE_URI:-}" ] || [ ! -f "$dir/postgres/postmaster.pid" ] \
    || as_postgres pg_ctl stop --silent --mode fast --pgdata "$dir/postgres"
}

case $command in
  start)
    if answers; then echo "MLflow answers at http://127.0.0.1:$port"; exit 0; fi
    only_this_host
    start_database
    mkdir -p "$dir/artifacts"
    app=()
    if [ -n "${MLFLOW_AUTH_CONFIG_PATH:-}" ]; then
      [ -f "$MLFLOW_AUTH_CONFIG_PATH" ] || die "MLFLOW_AUTH_CONFIG_PATH: $MLFLOW_AUTH_CONFIG_PATH: no such file"
      chmod 600 "$MLFLOW_AUTH_CONFIG_PATH"    # it holds the administrator's password
      app=(--app-name basic-auth)
      MLFLOW_FLASK_SERVER_SECRET_KEY=${MLFLOW_FLASK_SERVER_SECRET_KEY:-$(head -c 32 /dev/urandom | base64)}
      export MLFLOW_FLASK_SERVER_SECRET_KEY
    fi
    MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false setsid nohup mlflow server --host 127.0.0.1 "${app[@]}" \
      --port "$port" --workers 2 --backend-store-uri "${uri/#postgresql:/postgresql+psycopg:}" --artifacts-destination "$dir/artifacts" \
      >"$run/server.log" 2>&1 </dev/null &
    echo $! >"$run/server.pid"
    for _ in $(seq 120); do
      if answers; then echo "MLflow answers at http://127.0.0.1:$port, records in $dir"; exit 0; fi
      kill -0 "$(cat "$run/server.pid")" 2>/dev/null || break
      sleep 1
    done
    tail -n 20 "$run/server.log" >&2
    stop_database
    die "MLflow's server doesn't answer on 127.0.0.1:$port" ;;
  stop)
    if [ -f "$run/server.pid" ]; then
      group=$(cat "$run/server.pid")
      for signal in TERM KILL; do
        for _ in $(seq 20); do kill -s $signal -- "-$group" 2>/dev/null || break 2; sleep 0.5; done
      done
      rm "$run/server.pid"
    fi
    stop_database ;;
  backup)
    [ -n "$file" ] || die "backup: name the file to write"
    part=$(mktemp -d "$file.XXXXXX"); trap 'rm -rf "$part"' EXIT
    # The database first: an artifact too many does no harm, one too few would.
    pg_dump --format custom --file "$part/mlflow.dump" "$uri"
    tar -cf "$part/tar" -C "$part" mlflow.dump -C "$dir" artifacts
    mv "$part/tar" "$file"
    echo "$file: $(du -h "$file" | cut -f1)" ;;
  restore)
    [ -f "$file" ] || die "restore: $file: no such file"
    only_this_host
    [ ! -e "$dir/postgres" ] && [ ! -e "$dir/artifacts" ] || die "$dir holds records already; restore into another folder, or move them away"
    part=$(mktemp -d); trap 'rm -rf "$part"' EXIT
    tar -xf "$file" -C "$part" mlflow.dump
    start_database
    pg_restore --exit-on-error --no-owner --single-transaction --dbname "$uri" "$part/mlflow.dump"
    tar -xf "$file" -C "$dir" artifacts
    stop_database
    echo "$dir: restored from $file" ;;
  *) die "$command: start, stop, backup or restore" ;;
esac
