"""A Slurm of one node on this machine, of Debian's packages slurm-wlm and munge: all of its files are in one folder.

    apt-get install slurm-wlm munge
    python tests/slurm_cluster.py aetrain -m hydra/launcher=slurm dataset=digits seed=0,1

starts it, runs the command, and stops it. It needs root, as in a container, and no control groups and no accounting.
The node has 4 CPUs and 2 GPUs, whatever the machine has.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CPUS = 4
GPUS = ("/dev/null", "/dev/zero")  # Slurm asks for devices; nothing opens them
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
START_TIMEOUT_S = 30

CONFIG = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_min_interval=100000
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=10
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why a Slurm cannot be started here; empty where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm of one node is started by root"


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start a Slurm with its files in an empty folder; yield the environment of its commands; stop it."""
    write_files(folder)
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    daemons = [
        ["munged", "--foreground", "--force", *(f"--{key}={folder}/munge/{name}" for key, name in MUNGE.items())],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D"],
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            log = (folder / f"{command[0]}.out").open("wb")
            started.append(
                subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True)
            )
            log.close()
            if command[0] == "munged":
                wait_for((folder / "munge" / "socket").exists, folder)
        wait_for(lambda: "idle" in output(["sinfo", "-h", "-o", "%T"], environment), folder)
        yield environment
    finally:
        if len(started) == len(daemons):
            stop_jobs(environment)
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(20)


MUNGE = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def write_files(folder: Path) -> None:
    """Write the key of munge, the config of Slurm and the files that stand for GPUs."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    config = CONFIG.format(folder=folder, host=host, ports=free_ports(2), cpus=CPUS, gpus=len(GPUS))
    (folder / "slurm.conf").write_text(config.lstrip())
    (folder / "gres.conf").write_text("".join(f"NodeName={host} Name=gpu File={gpu}\n" for gpu in GPUS))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


def wait_for(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in folder.glob("*.log"))
            raise TimeoutError(f"Slurm did not start:\n{logs}")
        time.sleep(0.2)


def stop_jobs(environment: dict[str, str]) -> None:
    """Cancel all jobs and wait for their end."""
    output(["scancel", "--user=root"], environment)
    deadline = time.monotonic() + START_TIMEOUT_S
    while output(["squeue", "-h"], environment).strip() and time.monotonic() < deadline:
        time.sleep(0.5)


def output(command: list[str], environment: dict[str, str]) -> str:
    """Return what a command of Slurm prints; empty where it fails."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    return done.stdout


def main() -> None:
    """Run the command of the command line on a Slurm."""
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder, slurm_cluster(Path(folder)) as environment:
        code = subprocess.call(sys.argv[1:], env=os.environ | environment)
    sys.exit(code)


if __name__ == "__main__":
    main()
