"""Autobahn's cases against a server that echoes, one line of JSON a case: URL, how many at once, and which (all if none)."""

import asyncio
import json
import os
import sys

from kosoku import FailureError, run_fuzzingclient

# Compression is not offered, so there is nothing to see in these.
COMPRESSION = ["12.*", "13.*"]


async def main():
    url, at_once, cases = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    try:
        results = await run_fuzzingclient(url, cases or None, COMPRESSION, concurrency=at_once)
    except FailureError as failure:
        results = failure.results
    for result in results:
        case = {
            "id": result.case_id,
            "behavior": result.behavior.value,
            "close": result.behavior_close.value,
            "code": result.remote_close_code,
            "why": result.result,
        }
        print(json.dumps(case))


asyncio.run(main())
sys.stdout.flush()
# The package's threads may abort an interpreter that ends in the ordinary way.
os._exit(0)
