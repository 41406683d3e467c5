#!/usr/bin/env bash
# Ends what slurm_up.sh started, by its process ids. usage: slurm_down.sh STATE_DIR
state=$1
scancel --user=root 2>/dev/null
sleep 1
for file in "$state"/run/n?.pid "$state"/run/slurmctld.pid "$state"/run/slurmdbd.pid /run/mysqld/slurm-test.pid /run/munge/munged.pid; do
  [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null
done
rm -f /etc/slurm/slurm.conf /etc/slurm/slurmdbd.conf
exit 0
