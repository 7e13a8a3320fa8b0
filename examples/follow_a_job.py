"""Submit a demo job and follow it live; drop the network meanwhile, and it goes on where it was.

TIDINGS_TOKEN=… python follow_a_job.py [http://127.0.0.1:8000]
"""

import asyncio
import os
import sys

from tidings import Client, Reset, Snapshot


async def main(url: str, token: str) -> None:
    async with Client(url, token) as client:
        job = await client.submit("demo.steps", {"steps": 20, "delay_ms": 200, "output_every": 5})
        print(f"job {job.id}")

        async with client.watch(job.id, on_connection=lambda state: print(f"({state})")) as watch:
            async for item in watch:
                if isinstance(item, Reset | Snapshot):
                    print(f"begin anew: {item.job.status}")
                elif item.kind == "progress":
                    print(f"{item.seq:4} {item.data['percent']:5.1f} %  {item.data['message']}")
                else:
                    print(f"{item.seq:4} {item.kind}: {item.data}")

        print("result:", await client.result(job.id))


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000", os.environ["TIDINGS_TOKEN"])
    )
