"""agno's AgentOS with tokens. Arguments: port, `isolated` or `shared`: whether user_isolation is switched on."""

import sys

import uvicorn
from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.os import AgentOS
from agno.os.authz import Authorization

port, mode = int(sys.argv[1]), sys.argv[2]
key = "a-signing-key-of-at-least-32-characters"
system = AgentOS(
    agents=[Agent(id="notes", db=InMemoryDb())],
    authorization=Authorization(verification_keys=[key], algorithm="HS256"),
    user_isolation=mode == "isolated",
    telemetry=False,
)
uvicorn.run(system.get_app(), host="127.0.0.1", port=port, log_level="warning")
