#!/usr/bin/env bash
# Two machines in the shape of network namespaces, ca1 (10.77.0.1) and ca2 (10.77.0.2), joined by one cable; nothing leaves them.
# `ip -n ca2 link set cable2 down` cuts it. Needs root and iproute2.
set -euo pipefail
ip netns add ca1
ip netns add ca2
ip link add cable1 netns ca1 type veth peer name cable2 netns ca2
for i in 1 2; do
  ip -n "ca$i" link set lo up
  ip -n "ca$i" addr add "10.77.0.$i/24" dev "cable$i"
  ip -n "ca$i" link set "cable$i" up
done
