"""The reference translator: Stratum V1 towards its miners, Stratum V2 towards a pool."""

import os
import socket
import subprocess

from claims import free_port, until
from sv2.peers import KEY, folder, started

# What its vardiff begins from. Ours hash some millions a second: some ten shares a second at first, and soon fewer.
HASHES_PER_SECOND_MIN = 1_000_000


class Translator:
    """One in front of the pool at `pool_port`; it ends by itself when it loses that."""

    def __init__(self, program, pool_port):
        self.port = free_port()
        config = os.path.join(folder, f"translator-{self.port}.toml")
        with open(config, "w") as file:
            file.write(f"""
downstream_address = "127.0.0.1"
downstream_port = {self.port}
max_supported_version = 2
min_supported_version = 2
downstream_extranonce2_size = 4
verify_payout = false
aggregate_channels = false
supported_extensions = []
required_extensions = []
[downstream_difficulty_config]
min_individual_miner_hashrate = {HASHES_PER_SECOND_MIN}.0
shares_per_minute = 60.0
enable_vardiff = true
job_keepalive_interval_secs = 15
[[upstreams]]
address = "127.0.0.1"
port = {pool_port}
authority_pubkey = "{KEY}"
user_identity = "rig"
""")
        with open(os.path.join(folder, f"translator-{self.port}.log"), "w") as log:
            self.process = started(subprocess.Popen([program, "-c", config], stdout=log, stderr=log))

    def there(self):
        return until(self._answers)

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            return True
        except OSError:
            return False

    def is_alive(self):
        return self.process.poll() is None

    def end(self):
        self.process.terminate()
        self.process.wait(20)
