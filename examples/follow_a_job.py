"""Submit a demo job and follow it live; drop the network meanwhile, and it goes on where it was.

TIDINGS_TOKEN=… python follow_a_job.py [URL]        URL: else TIDINGS_URL, else http://127.0.0.1:8000
"""

import asyncio
import os
import sys

from tidings import Client, Reset, Snapshot, errors


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
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TIDINGS_URL", "http://127.0.0.1:8000")
    if not (token := os.environ.get("TIDINGS_TOKEN")):
        sys.exit("error: set TIDINGS_TOKEN to a token, such as tidings dev prints")
    try:
        asyncio.run(main(url, token))
    except errors.TidingsError as error:
        sys.exit(f"error: {error.code}: {error.detail}")
