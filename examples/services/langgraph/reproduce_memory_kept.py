"""Without the lab: `langgraph dev` grows by what deleted threads held, under either handler."""

import os
from pathlib import Path

from asking import NEW, ask, served

resident = []
with served() as server:
    for cycle in range(9):
        for _ in range(10):
            thread = ask("ada", "POST", "", NEW).json()["thread_id"]
            ask("ada", "POST", f"/{thread}/state", {"values": {"notes": [os.urandom(131_072).hex()]}})
            ask("ada", "DELETE", f"/{thread}")
        resident.append(int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096)
        print(f"{10 * cycle + 10} threads of 262,144 bytes deleted: {resident[-1]:,} bytes resident")
grown = resident[-1] - resident[2]
print("REPRODUCED" if grown > 60 * 262_144 / 4 else "not reproduced", f"60 threads later: {grown:,} bytes more")
