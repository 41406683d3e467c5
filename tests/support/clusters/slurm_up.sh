#!/usr/bin/env bash
# A real Slurm on this machine, on loopback: nodes n1 and n2 of two cores each, partition low (requeued by pre-emption, after a
# grace time) and high, with accounting. Needs root and Debian's slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge
# slurmdbd mariadb-server; no systemd. A Slurm that killed tests left is ended first. usage: slurm_up.sh STATE_DIR; slurm_down.sh ends
# what it started.
set -euo pipefail
state=$1
host=$(hostname -s)
if [ -e /etc/slurm/slurm.conf ]; then
  read -r tests tests_state < <(sed -n "1s/^# of the tests: //p" /etc/slurm/slurm.conf) ||
    { echo "this machine has a Slurm of its own: /etc/slurm/slurm.conf"; exit 1; }
  if kill -0 "$tests" 2>/dev/null && grep -qs slurmctld "/proc/$(cat "$tests_state/run/slurmctld.pid")/comm"; then
    echo "the tests of process $tests use Slurm on this machine"
    exit 1
  fi
  "$(dirname "$0")/slurm_down.sh" "$tests_state"
fi
mkdir -p "$state"/{ctld,log,run,spool/n1,spool/n2,db} /etc/slurm

wait_for() { for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done; echo "no answer: $*"; exit 1; }

cat >/etc/slurm/slurm.conf <<END
# of the tests: $PPID $state
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job may not start before its old credential has expired; the default is 120 s.
AuthInfo=cred_expire=5
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/spool/%n
SlurmctldPidFile=$state/run/slurmctld.pid
SlurmdPidFile=$state/run/%n.pid
SlurmctldLogFile=$state/log/slurmctld
SlurmdLogFile=$state/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
# Finished jobs leave the queue early, so that the tests ask sacct as well.
MinJobAge=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=2
PartitionName=low Nodes=n[1-2] Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high Nodes=n[1-2] MaxTime=60 PriorityTier=10 PreemptMode=OFF
END
install -m 600 /dev/stdin /etc/slurm/slurmdbd.conf <<END
AuthType=auth/munge
DbdHost=$host
DbdAddr=127.0.0.1
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_test
PidFile=$state/run/slurmdbd.pid
LogFile=$state/log/slurmdbd
END

install -d -o munge -g munge /run/munge
[ -f /etc/munge/munge.key ] || runuser -u munge -- mungekey
munge -n >/dev/null 2>&1 || runuser -u munge -- /usr/sbin/munged

# The project's own database folder: whatever this machine keeps in another one is left alone.
chown mysql "$state/db"
chmod o+x "$state"
install -d -o mysql -g mysql /run/mysqld
mariadb-install-db --user=mysql --datadir="$state/db" --skip-test-db --auth-root-authentication-method=socket >"$state/log/db" 2>&1
setsid mariadbd --no-defaults --user=mysql --datadir="$state/db" --skip-networking --innodb-lock-wait-timeout=900 \
  --socket=/run/mysqld/mysqld.sock --pid-file=/run/mysqld/slurm-test.pid >>"$state/log/db" 2>&1 </dev/null &
wait_for mariadb-admin ping
slurmdbd
wait_for sacctmgr -n -i show cluster
sacctmgr -n -i add cluster test >/dev/null 2>&1 || true
slurmctld
slurmd -N n1
slurmd -N n2
wait_for sh -c '[ "$(sinfo -h -N -t idle -p low | wc -l)" = 2 ]'
