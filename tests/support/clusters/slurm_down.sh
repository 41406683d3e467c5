#!/usr/bin/env bash
# Ends what slurm_up.sh started in STATE_DIR, by its process ids. usage: slurm_down.sh STATE_DIR
state=$1
grep -q "^# of the tests: [0-9]* $state\$" /etc/slurm/slurm.conf 2>/dev/null || exit 0  # another Slurm is left alone
scancel --user=root 2>/dev/null
sleep 1
pids=()
for file in "$state"/run/n?.pid "$state"/run/slurmctld.pid "$state"/run/slurmdbd.pid /run/mysqld/slurm-test.pid /run/munge/munged.pid; do
  [ -f "$file" ] && pids+=("$(cat "$file")")
done
kill "${pids[@]}" 2>/dev/null
for _ in $(seq 100); do kill -0 "${pids[@]}" 2>/dev/null || break; sleep 0.2; done  # a database's end takes seconds
rm -f /etc/slurm/slurm.conf /etc/slurm/slurmdbd.conf
exit 0
